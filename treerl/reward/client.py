"""One question over HTTP: one time limit over all of it, few retries, capped replies, no redirects,
no proxies; a user who wants to stop is heard while it waits."""

import contextlib
import http.client
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Thread

from treerl.errors import RewardError, printable
from treerl.reward.address import Address
from treerl.reward.interrupt import check_interrupt
from treerl.reward.tokens import Token

_PASSING = {408, 429, 500, 502, 503, 504}  # worth another try
_TRIES = 5
_LISTEN = 0.2  # seconds between two looks at whether the user wants to stop


class NoAnswer(RewardError):
    """The time is over, or the server is not there."""


class Rejected(RewardError):
    """The server says that the question was understood, and cannot be answered."""


class _Again(Exception):
    """A failure that may pass."""


@dataclass(frozen=True)
class Question:
    """What is asked."""

    method: str
    path: str
    body: bytes = b""
    content: str = "application/octet-stream"
    limit: int = 2**16  # bytes of the reply


@dataclass(frozen=True)
class Client:
    """Asks one server."""

    named: str  # "reward hps", as errors begin
    address: Address
    token: Token
    timeout: float  # seconds for an answer, all tries together
    alive: Callable[[], None] = lambda: None  # may raise while it waits: the server has died

    def ask(self, question: Question) -> bytes:
        """The body of a reply of status 200; `RewardError` for everything else."""
        end = time.monotonic() + self.timeout
        failure = "the time is over"
        for number in range(_TRIES):
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                return self._exchange(question, left)
            except _Again as error:
                failure = str(error)
            pause = random.SystemRandom().uniform(0.5, 1.0) * 0.2 * 2**number
            if time.monotonic() + pause >= end:
                break
            self._pause(pause)
        else:
            raise NoAnswer(f"{self.named}: no answer from {self.address}: {failure}")
        raise NoAnswer(
            f"{self.named}: no answer from {self.address} within {self.timeout:g} s: {failure}"
        )

    def safe(self, text: object) -> str:
        """What a server says, as it may be shown: one line, without the token."""
        return printable(self.token.redact(str(text)))

    def plain(self, body: bytes) -> bytes:
        """A reply without the token."""
        return body.replace(self.token.value.encode(), b"***") if self.token.value else body

    def strange(self, why: object) -> RewardError:
        """The error for a reply that is not what was expected."""
        return RewardError(
            f"{self.named}: {self.address} does not answer as a reward: {self.safe(why)}"
        )

    def _exchange(self, question: Question, seconds: float) -> bytes:
        host = self.address.host
        port = self.address.port
        link = http.client.HTTPConnection(host, port, timeout=seconds)
        if self.address.scheme == "https":
            link = http.client.HTTPSConnection(host, port, timeout=seconds)
        reply: Future[bytes] = Future()
        Thread(target=self._talk, args=(link, question, reply), daemon=True).start()
        end = time.monotonic() + seconds
        try:
            while not reply.done():
                left = end - time.monotonic()
                if left <= 0:
                    raise _Again("the time is over")
                wait([reply], min(_LISTEN, left))
                self._listen()
        finally:
            _cut(link)
        return reply.result()

    def _talk(
        self, link: http.client.HTTPConnection, question: Question, reply: "Future[bytes]"
    ) -> None:
        """In a thread of its own, so that nothing that a server does can hold up the run."""
        headers = {
            "Accept-Encoding": "identity",
            "Content-Type": question.content,
            **self.token.headers,
        }
        try:
            link.connect()
            link.request(question.method, self.address.path + question.path, question.body, headers)
            with link.getresponse() as response:
                body = self._body(response, question.limit)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reply.set_exception(_Again(f"{type(error).__name__}: {self.safe(error)}"))
        except BaseException as error:
            reply.set_exception(error)
        else:
            reply.set_result(body)
        finally:
            link.close()

    def _body(self, response: http.client.HTTPResponse, limit: int) -> bytes:
        status = response.status
        if status in _PASSING:
            raise _Again(f"status {status}")
        if status == 422:
            raise Rejected(f"{self.named}: {self.safe(_told(response.read(2**16)))}")
        if status != 200:  # a redirect, too: images go where they were sent, and nowhere else
            hint = f"; {self.token.hint}" if self.token.hint else ""
            raise RewardError(f"{self.named}: {self.address} refused ({status}){hint}")
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise self.strange("expected a plain reply")
        promised = response.length
        body = response.read(limit + 1)
        if len(body) > limit:
            raise self.strange(f"expected at most {limit} bytes")
        whole = response.chunked if promised is None else len(body) >= promised
        if not whole:
            raise _Again("the reply was cut off")
        return body

    def _listen(self) -> None:
        check_interrupt()
        self.alive()

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._listen()
            time.sleep(min(_LISTEN, left))
        self._listen()


def _told(body: bytes) -> str:
    """The error in a reply, or that there is none."""
    try:
        told = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "refused (422)"
    return told if isinstance(told, str) else "refused (422)"


def _cut(link: http.client.HTTPConnection) -> None:
    """Ends a connection that another thread may be waiting for."""
    with contextlib.suppress(OSError, AttributeError):
        link.sock.shutdown(2)
