"""The question "does the user want to stop?", asked wherever a reward waits for something."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


def _never() -> None:
    return


_current: ContextVar[Callable[[], None]] = ContextVar("check_interrupt", default=_never)


def check_interrupt() -> None:
    """Raises `Stopped` when the run that waits for this reward is to end; whoever waits asks it."""
    _current.get()()


@contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """While inside, and in this thread, `check_interrupt()` asks `check`."""
    before = _current.set(check)
    try:
        yield
    finally:
        _current.reset(before)
