"""One request to a reward server: who asks, what is asked, and the answer."""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from treerl.engine.task import Task
from treerl.errors import InputError, TreerlError, printable
from treerl.reward import call, wire
from treerl.reward.contract import Reward

_IDLE = 10.0  # seconds that a client may stay silent
_SLOWEST = 2**20  # bytes a second of a question, at least
_LINGER = 2.0  # seconds for a client to read why it was refused


class Refused(Exception):
    """What is not served, with its status and what the client is told."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Served(Protocol):
    """What a handler asks of its server (`treerl.reward.server.Server`)."""

    name: str
    reward: Reward
    limit: int
    tells: bool

    def knows(self, authorization: str) -> bool: ...
    def is_called(self, host: str) -> bool: ...
    def heard(self, connection: Any) -> None: ...
    def place(self) -> AbstractContextManager[None]: ...
    def turn(self) -> AbstractContextManager[None]: ...


class Handler(BaseHTTPRequestHandler):
    """Answers one request, and closes."""

    server: Served  # type: ignore[assignment]
    timeout = _IDLE
    server_version = "treerl"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve({"/health": self._health})

    def do_POST(self) -> None:
        routes = {"/score": self._score, "/measures": self._measures, "/validate": self._validate}
        self._serve(routes)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self._send(int(code), {"error": "not a request of this protocol"})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is asked is nobody's business."""

    def _serve(self, routes: dict[str, Callable[[], dict[str, Any]]]) -> None:
        self.server.heard(self.connection)
        try:
            self._refuse_strangers()
            if self.path not in routes:
                raise Refused(404, "no such path")
            content = routes[self.path]()
        except Refused as refusal:
            self._send(refusal.status, {"error": str(refusal)})
            self._linger()
            return
        self._send(200, content)

    def _refuse_strangers(self) -> None:
        if self.headers.get("Origin") is not None:
            raise Refused(403, "not for web pages")
        if not self.server.is_called(self.headers.get("Host", "")):
            raise Refused(403, "another host was asked for")
        if not self.server.knows(self.headers.get("Authorization", "")):
            raise Refused(401, "wrong token")

    def _health(self) -> dict[str, Any]:
        return {"reward": self.server.name, "modality": self.server.reward.modality}

    def _score(self) -> dict[str, Any]:
        def scored(tasks: list[Task], tensors: dict[str, Tensor]) -> dict[str, Any]:
            samples = wire.samples_of(tasks, tensors)
            scores = call.rate(self.server.name, self.server.reward, samples)
            ids = [str(row) for row in range(len(samples))]
            return {"ids": ids, **wire.answer({"scores": scores})}

        return self._answered(scored)

    def _measures(self) -> dict[str, Any]:
        def measured(tasks: list[Task], tensors: dict[str, Tensor]) -> dict[str, Any]:
            samples = wire.samples_of(tasks, tensors)
            figures = call.measure(self.server.name, self.server.reward, samples)
            return {"measures": wire.answer(figures)}

        return self._answered(measured)

    def _validate(self) -> dict[str, Any]:
        def validated(tasks: list[Task], tensors: dict[str, Tensor]) -> dict[str, Any]:
            call.validate(self.server.name, self.server.reward, tasks)
            return {}

        return self._answered(validated)

    def _answered(
        self, work: Callable[[list[Task], dict[str, Tensor]], dict[str, Any]]
    ) -> dict[str, Any]:
        """What `work` makes of the question; `Refused` says what is wrong with it."""
        with self.server.place(), tempfile.TemporaryDirectory(prefix="treerl-") as folder:
            message = self._message()
            try:
                tasks, tensors = wire.tasks_of(message, Path(folder))
                del message
                with self.server.turn():
                    return work(tasks, tensors)
            except wire.WireError as error:
                raise Refused(400, str(error)) from error
            except InputError as error:
                raise Refused(422, printable(error, 2000)) from error
            except TreerlError as error:
                text = printable(error, 2000)
                if self.server.tells:
                    raise Refused(422, text.removeprefix(f"reward {self.server.name}: ")) from error
                print(f"treerl: {text}", file=sys.stderr, flush=True)
                raise Refused(422, "the reward failed") from error  # why is the server's own matter

    def _message(self) -> bytes:
        """The body of the request, which has to come in a reasonable time."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise Refused(411, "a length is needed")
        left = int(length)
        if left > self.server.limit:
            raise Refused(413, f"at most {self.server.limit} bytes")
        end = time.monotonic() + _IDLE + left / _SLOWEST
        message = bytearray()
        while left > 0:
            part = self.rfile.read1(min(left, 2**20))
            if not part or time.monotonic() > end:
                raise Refused(408, "the question did not come")
            message += part
            left -= len(part)
        return bytes(message)

    def _linger(self) -> None:
        """Reads on for a moment: a connection closed with something unread loses the answer."""
        end = time.monotonic() + _LINGER
        self.connection.settimeout(0.2)
        while time.monotonic() < end:
            if not self.rfile.read1(2**20):
                return

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps({"protocol": wire.PROTOCOL, **content}, allow_nan=False).encode()
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
