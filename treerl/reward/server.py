"""Any reward behind HTTP: on this machine freely, elsewhere only with a token."""

import hmac
import ipaddress
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from torch import Tensor

from treerl import registry
from treerl.errors import InputError, TreerlError, first_line
from treerl.reward import wire
from treerl.reward.contract import Reward, checked
from treerl.reward.remote import TOKEN

_SLOW = 120.0  # seconds that a client may stay silent


class Server(ThreadingHTTPServer):
    """Serves one reward, a call at a time."""

    daemon_threads = True

    def __init__(
        self, name: str, reward: Reward, host: str, port: int, token: str | None, most: int = 2**30
    ) -> None:
        _refuse_open(host, token)
        self.name, self.reward, self.token, self.most, self.lock = (
            name,
            reward,
            token,
            most,
            threading.Lock(),
        )
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"serve-reward: {host}:{port} cannot be used: {first_line(error)}"
            ) from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = _SLOW
    server_version, sys_version = "treerl", ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self._allowed():
            return
        if self.path != "/health":
            return self._send(404, {"error": "no such path"})
        self._send(200, {"reward": self.server.name, "takes": self.server.reward.takes})

    def do_POST(self) -> None:
        if not self._allowed():
            return
        if self.path != "/score":
            return self._send(404, {"error": "no such path"})
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            return self._send(411, {"error": "a length is needed"})
        if int(length) > self.server.most:
            return self._send(413, {"error": f"at most {self.server.most} bytes"})
        try:
            images, prompts, ids = _question(self.rfile.read(int(length)))
        except wire.WireError as error:
            return self._send(400, {"error": str(error)})
        try:
            with self.server.lock:
                found = checked(self.server.name, self.server.reward, images, prompts)
        except TreerlError:
            traceback.print_exc(file=sys.stderr)
            return self._send(422, {"error": "the reward failed"})  # why is in the server's own log
        self._send(200, wire.reply(ids, found))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is asked is nobody's business."""

    def _allowed(self) -> bool:
        token = self.server.token
        given = self.headers.get("Authorization", "")
        if token is None or hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return True
        self._send(401, {"error": "wrong token"})
        return False

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps({"protocol": wire.PROTOCOL, **content}, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status != 200:
            self.send_header(
                "Connection", "close"
            )  # what was not read of the question is no next one
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)


def serve(
    name: str, options: dict[str, Any], host: str, port: int, say: Callable[[str], None]
) -> None:
    """Serve a reward until the process is ended."""
    _refuse_open(host, os.environ.get(TOKEN))  # before weights are read
    (reward,) = registry.build_rewards([name], options).values()
    with Server(name, reward, host, port, os.environ.get(TOKEN)) as server:
        say(
            f"reward {name} on http://{host}:{server.server_address[1]} (scores {reward.takes}); end it with Ctrl-C"
        )
        sys.stdout.flush()
        server.serve_forever()


def _question(message: bytes) -> tuple[Tensor, list[str], list[str]]:
    asked, rest = wire.unpacked(message)
    images, found = wire.samples(rest), [asked.get(name) for name in ("prompts", "ids")]
    lists = [
        one for one in found if isinstance(one, list) and all(isinstance(text, str) for text in one)
    ]
    if len(lists) < 2 or any(len(one) != len(images) or not one for one in lists):
        raise wire.WireError("expected one prompt and one id for each sample")
    return images, lists[0], lists[1]


def _refuse_open(host: str, token: str | None) -> None:
    if not token and not _is_here(host):
        raise InputError(
            f"serve-reward: an address other than 127.0.0.1 needs a token in the variable {TOKEN}"
        )


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
