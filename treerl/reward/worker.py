"""A reward in a process of its own: killed when it hangs, started again, gone with the run.

The process is `treerl serve-reward` on a free port of this machine, asked as every other server is,
with a token that it is told once. Its stdin is a pipe that nobody else holds: when the run ends,
however it ends, the pipe closes, and the process is killed.
"""

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from treerl.engine.task import Modality, Samples, Task
from treerl.errors import InputError, RewardError, printable
from treerl.reward.address import Address
from treerl.reward.client import Client, NoAnswer
from treerl.reward.contract import Reward
from treerl.reward.interrupt import check_interrupt
from treerl.reward.remote import Remote
from treerl.reward.tokens import Token

_STARTING = 600.0  # seconds for imports and weights, which no call has to wait for again
_LINE = 65_536  # bytes of a worker's first line
_LISTEN = 0.2  # seconds between two looks at whether the user wants to stop

T = TypeVar("T")


class Worker(Reward):
    """Asks a reward in a process of its own; `timeout` is of each call, in seconds.

    Without `loaded` its weights are not read, so that it can be asked about tasks alone.
    """

    def __init__(
        self, name: str, parameters: Mapping[str, Any], timeout: float, loaded: bool = True
    ) -> None:
        self.name = name
        self.parameters = dict(parameters)
        self.timeout = timeout
        self.loaded = loaded
        self._process: subprocess.Popen[bytes] | None = None
        self._remote = self._started()
        self.modality: Modality = self._remote.modality

    def begin(self, samples: Samples) -> None:
        self._asked(lambda remote: remote.begin(samples))

    def __call__(self, samples: Samples) -> Tensor:
        return self._asked(lambda remote: remote(samples))

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        return self._asked(lambda remote: remote.measures(samples))

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        self._asked(lambda remote: remote.validate_tasks(tasks))

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """Ends the process and all that it started, whatever they are doing."""
        process = self._process
        self._process = None
        if process is None:
            return
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # the group is gone
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _asked(self, call: Callable[[Remote], T]) -> T:
        if self._process is None:
            self._remote = self._started()
        try:
            return call(self._remote)
        except NoAnswer as error:
            self._alive()
            self.close()
            what = f"no answer within {self.timeout:g} s; its worker was killed"
            raise RewardError(f"reward {self.name}: {what}") from error

    def _alive(self) -> None:
        """`RewardError` when the process has died."""
        process = self._process
        code = process.poll() if process else None
        if code is not None:
            self.close()
            raise RewardError(f"reward {self.name}: its worker died (exit code {code})")

    def _started(self) -> Remote:
        token = secrets.token_urlsafe(32)
        command = [sys.executable, "-P", "-m", "treerl", "serve-reward", self.name, "--worker"]
        paths = [path or os.getcwd() for path in sys.path]  # it is to find what the run finds
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # a Ctrl-C is for the run
        )
        try:
            settings = {"token": token, "parameters": self.parameters, "load": self.loaded}
            greeting = self._greeting(settings)
        except BaseException:
            self.close()
            raise
        address = Address("http", "127.0.0.1", int(greeting["port"]))
        client = Client(f"reward {self.name}", address, Token(token), self.timeout, self._alive)
        return Remote(client, greeting["modality"])

    def _greeting(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What the process says when its reward is there."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died: below it is said how
        except (TypeError, ValueError) as error:
            raise InputError(f"rewards.{self.name}: cannot be sent to a worker: {error}") from error
        line = b""
        end = time.monotonic() + _STARTING
        while not line.endswith(b"\n"):
            check_interrupt()
            if time.monotonic() > end or len(line) > _LINE:
                raise RewardError(f"reward {self.name}: its worker did not start")
            if not select.select([process.stdout], [], [], _LISTEN)[0]:
                continue
            part = os.read(process.stdout.fileno(), _LINE)
            if not part:
                code = process.wait()
                raise RewardError(f"reward {self.name}: its worker died (exit code {code})")
            line += part
        greeting: dict[str, Any] = json.loads(line)
        if "error" in greeting:
            raise InputError(printable(greeting["error"], 2000))
        return greeting
