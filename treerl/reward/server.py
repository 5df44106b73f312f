"""Any reward behind HTTP: here freely, elsewhere only with a token, and never for a web page."""

import contextlib
import hmac
import ipaddress
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

from treerl.errors import InputError, first_line
from treerl.reward.contract import Reward
from treerl.reward.handler import Handler, Refused
from treerl.reward.tokens import TOKEN

_WAITING = 64  # connections that have not asked anything yet; of more, the oldest is closed
_QUEUE = 32  # questions at a time: one is answered, the others wait


class Server(ThreadingHTTPServer):
    """Serves one reward, a call at a time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        name: str,
        reward: Reward,
        host: str,
        port: int,
        token: str | None,
        timeout: float = 600.0,
        limit: int = 2**31,
        tells: bool = False,
    ) -> None:
        """`limit` is the bytes of a question; a run's own server `tells` how the reward failed."""
        refuse_open(host, token)
        self.name = name
        self.reward = reward
        self.token = token
        self.patience = timeout
        self.limit = limit
        self.tells = tells
        self._here = is_here(host)
        self._names = ("127.0.0.1", "localhost", "[::1]", host.lower())
        self._waiting: dict[Any, None] = {}  # connections, the oldest first
        self._gate = threading.Lock()
        self._queue = threading.BoundedSemaphore(_QUEUE)
        self._scoring = threading.Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            message = f"serve-reward: {host}:{port} cannot be used: {first_line(error)}"
            raise InputError(message) from error

    @property
    def port(self) -> int:
        """The port, also where a free one was asked for."""
        return int(self.server_address[1])

    def knows(self, authorization: str) -> bool:
        """Whether a client told the token, compared in constant time."""
        if self.token is None:
            return True
        return hmac.compare_digest(authorization.encode(), f"Bearer {self.token}".encode())

    def is_called(self, host: str) -> bool:
        """Whether a `Host` is this server; elsewhere than on this machine the token says so."""
        return not self._here or host.lower() in {f"{name}:{self.port}" for name in self._names}

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place among the questions that are read and answered; `Refused` when all are taken."""
        if not self._queue.acquire(blocking=False):
            raise Refused(503, "too many questions")
        try:
            yield
        finally:
            self._queue.release()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """The reward for oneself; `Refused` when another call does not end."""
        if not self._scoring.acquire(timeout=self.patience):
            raise Refused(503, "another call does not end")
        try:
            yield
        finally:
            self._scoring.release()

    def heard(self, connection: Any) -> None:
        """A connection has asked something: it is no longer closed for the sake of others."""
        with self._gate:
            self._waiting.pop(connection, None)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._gate:
            if len(self._waiting) >= _WAITING:
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._waiting[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.heard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


def refuse_open(host: str, token: str | None) -> None:
    """`InputError` when others could use the server without a token."""
    if not token and not is_here(host):
        raise InputError(
            f"serve-reward: an address other than 127.0.0.1 needs a token in the variable {TOKEN}"
        )


def is_here(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
