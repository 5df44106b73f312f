"""A reward in a process of its own, which can be killed when it hangs and started again when it dies."""

import atexit
import os
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from treerl.engine.task import Modality
from treerl.errors import InputError, RewardError
from treerl.reward import wire
from treerl.reward.contract import Reward

_STARTING = 600.0  # seconds for imports and weights, which no call has to wait for again


class Worker(Reward):
    """Asks a child process; every call has a deadline, and the child dies with the run."""

    def __init__(self, name: str, options: dict[str, Any], deadline: float) -> None:
        self.name, self.deadline = name, deadline
        self._start = wire.packed({"protocol": wire.PROTOCOL, "name": name, "options": options})
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        told = self._started()
        if "error" in told:
            raise InputError(str(told["error"]))
        self.takes: Modality = told["takes"]  # type: ignore[misc]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[N]`; NaN where the reward's own were not finite."""
        if self._child is None:
            self._started()
        try:
            header, _ = wire.unpacked(self._exchange(wire.request(images, prompts), self.deadline))
            if "error" in header:
                raise RewardError(str(header["error"]))
            return wire.scores(header, len(prompts))
        except wire.WireError as error:
            self.close()
            raise RewardError(
                f"reward {self.name}: its worker does not answer as one: {error}"
            ) from error

    def refuse(self, prompts: Sequence[str]) -> None:
        asked = wire.packed({"protocol": wire.PROTOCOL, "refuse": list(prompts)})
        told, _ = wire.unpacked(self._exchange(asked, self.deadline))
        if "error" in told:
            raise InputError(str(told["error"]))

    def close(self) -> None:
        """Ends the child, whatever it is doing."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def _started(self) -> dict[str, Any]:
        words = [sys.executable, "-m", "treerl.reward.child"]
        self._child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        try:
            return wire.unpacked(self._exchange(self._start, _STARTING))[0]
        except wire.WireError as error:
            self.close()
            raise RewardError(
                f"reward {self.name}: its worker does not answer as one: {error}"
            ) from error

    def _exchange(self, message: bytes, seconds: float) -> bytes:
        """Send a message and read one, within the deadline; the child is killed where it fails."""
        assert (
            self._child is not None
            and self._child.stdin is not None
            and self._child.stdout is not None
        )
        into, out = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(into, False)
        os.set_blocking(out, False)
        ends, left = (
            time.monotonic() + seconds,
            memoryview(struct.pack(">Q", len(message)) + message),
        )
        found = bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(into, selectors.EVENT_WRITE)
            ready.register(out, selectors.EVENT_READ)
            while not _whole(found):
                if time.monotonic() >= ends:
                    self.close()
                    raise RewardError(
                        f"reward {self.name}: no answer within {seconds:g} s; its worker was killed"
                    )
                for key, _ in ready.select(min(1.0, max(0.0, ends - time.monotonic()))):
                    if key.fd == into:
                        left = self._send(into, left)
                        if not left:
                            ready.unregister(into)
                    elif not self._receive(out, found):
                        self._died()
        return bytes(found[wire.LENGTH :])

    def _send(self, into: int, left: memoryview) -> memoryview:
        try:
            return left[os.write(into, left[: 2**20]) :]
        except BlockingIOError:
            return left
        except BrokenPipeError:
            self._died()
            raise AssertionError from None

    def _receive(self, out: int, found: bytearray) -> bool:
        try:
            part = os.read(out, 2**20)
        except BlockingIOError:
            return True
        found += part
        return bool(part)

    def _died(self) -> None:
        child = self._child
        code = child.wait() if child is not None else None
        self.close()
        raise RewardError(f"reward {self.name}: its worker died (exit code {code})")


def _whole(found: bytearray) -> bool:
    if len(found) < wire.LENGTH:
        return False
    (count,) = struct.unpack(">Q", found[: wire.LENGTH])
    return len(found) >= wire.LENGTH + int(count)
