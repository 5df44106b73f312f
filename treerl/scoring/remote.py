"""A reward behind HTTP: one deadline over the whole exchange, few retries, no belief in what is not the protocol."""

import contextlib
import http.client
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from torch import Tensor

from treerl.backbone import Medium
from treerl.errors import InputError, RewardError, first_line
from treerl.reward import Reward
from treerl.scoring import wire

TOKEN = "TREERL_REWARD_TOKEN"  # the environment variable
_PASSING = {408, 429, 500, 502, 503, 504}  # worth another try
_TRIES = 5
_ROOM = 65_536  # bytes of a reply beside its scores


class _Again(Exception):
    """A failure that may pass."""


@dataclass(frozen=True)
class _Address:
    """Where a server is, without secrets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


class Remote(Reward):
    """Asks a server of `treerl serve-reward`."""

    def __init__(self, name: str, url: str, deadline: float) -> None:
        self.name, self.deadline, self.address = name, deadline, _address(name, url)
        try:
            told = self._exchange("GET", "/health", b"", _ROOM)
        except RewardError as error:
            raise InputError(str(error)) from error
        if told.get("takes") not in ("pictures", "videos"):
            raise InputError(f"reward {name}: {self.address} does not say what it scores")
        self.takes: Medium = told["takes"]  # type: ignore[misc]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[N]`; NaN where the reward's own were not finite."""
        body = wire.request(images, prompts)
        try:
            return wire.scores(self._exchange("POST", "/score", body, _ROOM + 64 * len(prompts)), len(prompts))
        except wire.WireError as error:
            raise RewardError(f"reward {self.name}: {self.address} does not answer as a reward: {error}") from error

    def _exchange(self, method: str, path: str, body: bytes, most: int) -> dict[str, Any]:
        ends, reason = time.monotonic() + self.deadline, ""
        for number in range(_TRIES):
            try:
                return wire.strict(self._once(method, path, body, most, ends))
            except wire.WireError as error:
                what = f"reward {self.name}: {self.address} does not answer as a reward"
                raise RewardError(f"{what}: {error}") from error
            except _Again as error:
                reason = first_line(error)
            pause = random.uniform(0.5, 1.0) * 0.2 * 2**number
            if time.monotonic() + pause >= ends:
                break
            time.sleep(pause)
        raise RewardError(f"reward {self.name}: no answer from {self.address} within {self.deadline:g} s: {reason}")

    def _once(self, method: str, path: str, body: bytes, most: int, ends: float) -> bytes:
        left = ends - time.monotonic()
        if left <= 0:
            raise _Again("the deadline is over")
        kind = http.client.HTTPSConnection if self.address.scheme == "https" else http.client.HTTPConnection
        link = kind(self.address.host, self.address.port, timeout=left)
        headers = {"Content-Type": "application/octet-stream", "Accept-Encoding": "identity"}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        try:
            link.connect()
            with _ending(link, left):
                link.request(method, path, body, headers)
                with link.getresponse() as response:
                    return self._answer(response, most)
        except (OSError, http.client.HTTPException) as error:
            raise _Again(f"{type(error).__name__}: {error}") from error
        finally:
            link.close()

    def _answer(self, response: http.client.HTTPResponse, most: int) -> bytes:
        if response.status in _PASSING:
            raise _Again(f"status {response.status}")
        if response.status != 200:  # a redirect, too: pictures go where they were sent, and nowhere else
            raise RewardError(f"reward {self.name}: {self.address} refused ({response.status})")
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise wire.WireError("expected a plain reply")
        promised = response.length
        found = response.read(most + 1)
        if len(found) > most:
            raise wire.WireError(f"expected at most {most} bytes")
        if promised is None or len(found) < promised:  # cut by the other side, or by us when the time was over
            raise _Again("the reply was cut off")
        return found


@contextlib.contextmanager
def _ending(link: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """The connection is cut when the time is over, however the bytes drip in."""
    timer = threading.Timer(seconds, _cut, [link])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut(link: http.client.HTTPConnection) -> None:
    with contextlib.suppress(OSError):
        if link.sock is not None:
            link.sock.shutdown(2)


def _address(name: str, url: str) -> _Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise InputError(f"reward {name}: expected an address such as http://127.0.0.1:8000")
    if parts.username or parts.password:
        raise InputError(f"reward {name}: expected no password in an address; set the environment variable {TOKEN}")
    return _Address(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))
