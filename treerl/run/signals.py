"""Ctrl-C, SIGTERM, a closed terminal: the first ends a run cleanly, the second at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from treerl.engine.peers import Peers
from treerl.errors import Stopped
from treerl.reward import interrupt as waiting

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupt:
    """Remembers that a signal came; `check` raises `Stopped` at the next safe point."""

    def __init__(self) -> None:
        self.alone = True  # one process need not wait for the others' next common point
        self._signal: int | None = None

    def check(self) -> None:
        """Raise `Stopped` when a signal has come; called where nothing is half done."""
        if self._signal is not None:
            raise Stopped(self._signal)

    def check_together(self, peers: Peers) -> None:
        """The same where a signal has come to any process: all of them stop at this point."""
        number = peers.agree(self._signal or 0)
        if number:
            raise Stopped(number)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler; it stays the handler, so that nobody is taken for who changed it."""
        if self._signal is not None:  # a second signal does not wait
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signal = number
        if (
            self.alone and waiting.in_foreign_code()
        ):  # which may never come back, and changes nothing of ours
            self.check()


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """While inside, signals set the returned `Interrupt`; the handlers are put back afterwards."""
    interrupt = Interrupt()
    before = {number: signal.signal(number, interrupt.handle) for number in STOPPING}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
