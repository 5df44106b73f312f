"""One question over HTTP: one deadline over all of it, few retries, capped replies, no redirects, no proxies."""

import contextlib
import http.client
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from treerl.errors import InputError, RewardError, first_line

_PASSING = {408, 429, 500, 502, 503, 504}  # worth another try
_TRIES = 5


class _Again(Exception):
    """A failure that may pass."""


@dataclass(frozen=True)
class Address:
    """Where a server is, without secrets."""

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}{self.path}"

    @classmethod
    def parse(cls, named: str, url: str, secret: str) -> "Address":
        """`InputError` says what `named` expected; passwords belong into the environment variable `secret`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
        ):
            raise InputError(f"{named}: expected an address such as http://127.0.0.1:8000")
        if parts.username or parts.password:
            raise InputError(
                f"{named}: expected no password in an address; set the environment variable {secret}"
            )
        return cls(
            parts.scheme,
            parts.hostname,
            port or (443 if parts.scheme == "https" else 80),
            parts.path.rstrip("/"),
        )


@dataclass(frozen=True)
class Question:
    """What is asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


def ask(named: str, address: Address, question: Question, most: int, deadline: float) -> bytes:
    """The body of a reply of status 200, at most `most` bytes; `RewardError` for everything else."""
    ends, reason = time.monotonic() + deadline, "the deadline is over"
    for number in range(_TRIES):
        left = ends - time.monotonic()
        if left <= 0:
            break
        try:
            return _once(named, address, question, most, left)
        except _Again as error:
            reason = first_line(error)
        pause = random.SystemRandom().uniform(0.5, 1.0) * 0.2 * 2**number
        if time.monotonic() + pause >= ends:
            break
        time.sleep(pause)
    raise RewardError(f"{named}: no answer from {address} within {deadline:g} s: {reason}")


def _once(named: str, address: Address, question: Question, most: int, seconds: float) -> bytes:
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    link = kind(address.host, address.port, timeout=seconds)
    headers = {"Accept-Encoding": "identity", **question.headers}
    try:
        link.connect()
        with _ending(link, seconds):
            link.request(question.method, address.path + question.path, question.body, headers)
            with link.getresponse() as response:
                return _answer(named, address, response, most)
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"{type(error).__name__}: {error}") from error
    finally:
        link.close()


def _answer(named: str, address: Address, response: http.client.HTTPResponse, most: int) -> bytes:
    if response.status in _PASSING:
        raise _Again(f"status {response.status}")
    if (
        response.status != 200
    ):  # a redirect, too: pictures go where they were sent, and nowhere else
        raise RewardError(f"{named}: {address} refused ({response.status})")
    if response.getheader("Content-Encoding", "identity") != "identity":
        raise RewardError(f"{named}: {address} does not answer as a reward: expected a plain reply")
    promised = response.length
    found = response.read(most + 1)
    if len(found) > most:
        raise RewardError(
            f"{named}: {address} does not answer as a reward: expected at most {most} bytes"
        )
    whole = response.chunked if promised is None else len(found) >= promised
    if not whole:  # cut by the other side, or by us when the time was over
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
