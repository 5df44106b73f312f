"""The command `treerl serve-reward`, for others and as the worker of a run."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from treerl.errors import TreerlError
from treerl.reward.build import make
from treerl.reward.call import load
from treerl.reward.server import Server, refuse_open
from treerl.reward.tokens import TOKEN, read
from treerl.reward.worker import Worker


def serve(
    name: str,
    parameters: Mapping[str, Any],
    host: str,
    port: int,
    say: Callable[[str], None],
    timeout: float = 600.0,
) -> None:
    """Serve a reward, which lives in a worker that may be killed, until the process is ended."""
    token = read(TOKEN)
    refuse_open(host, token)  # before weights are read
    with (
        contextlib.closing(Worker(name, parameters, timeout)) as reward,
        Server(name, reward, host, port, token, timeout + 1) as server,
    ):
        scores = f"scores {reward.modality}"
        say(f"reward {name} on http://{host}:{server.port} ({scores}); end it with Ctrl-C")
        sys.stdout.flush()
        server.serve_forever()


def work(name: str) -> None:
    """The process of a `Worker`: told its token in a line on stdin, tells its port on stdout."""
    greetings = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a reward prints goes to stderr
    line = _line()
    if not line:
        return
    _die_with_parent()
    settings = json.loads(line)
    try:
        reward = make(name, settings["parameters"])
        if settings["load"]:
            load(name, reward)
        server = Server(name, reward, "127.0.0.1", 0, settings["token"], limit=2**40, tells=True)
    except TreerlError as error:
        _greet(greetings, {"error": str(error)})
        return
    with server:
        _greet(greetings, {"port": server.port, "modality": reward.modality})
        server.serve_forever()


def _line() -> bytes:
    """The first line of stdin, and no byte more."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            return b""
        line += part
    return line


def _greet(greetings: Any, content: dict[str, Any]) -> None:
    greetings.write(json.dumps(content) + "\n")
    greetings.close()


def _die_with_parent() -> None:
    """Leave a process behind that kills this one when stdin closes, whatever it is doing then.

    A thread could not: a reward that hangs in C may never let it run.
    """
    worker = os.getpid()
    if os.fork():
        return
    os.closerange(1, 256)
    while os.read(0, 4096):
        pass
    with contextlib.suppress(OSError):
        os.killpg(worker, signal.SIGKILL)
    os._exit(0)
