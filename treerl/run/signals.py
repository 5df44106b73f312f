"""Ctrl-C and SIGTERM: the first asks the run to end cleanly, the second ends it at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from treerl.errors import Stopped

_WATCHED = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Remembers that a signal came; `poll` raises `Stopped` at the next safe point."""

    def __init__(self) -> None:
        self._signal: int | None = None

    def poll(self) -> None:
        """Raise `Stopped` when a signal has come; called between two forwards, never inside an optimizer step."""
        if self._signal is not None:
            raise Stopped(self._signal)

    def arrived(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self._signal = number
        for one in _WATCHED:  # a second signal does not wait
            signal.signal(one, signal.SIG_DFL)


@contextmanager
def watched() -> Iterator[Stop]:
    """While inside, signals set the returned `Stop`; the handlers are put back afterwards."""
    stop = Stop()
    before = {one: signal.signal(one, stop.arrived) for one in _WATCHED}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
