"""The question "does the user want to stop?", asked wherever a reward waits for something."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

_IMPORTING = "<frozen importlib._bootstrap>"  # where Python runs an import


def _never() -> None:
    return


_current: ContextVar[Callable[[], None]] = ContextVar("check_interrupt", default=_never)


_depth = 0  # of calls into code that is not ours; signals come to the main thread alone


@contextmanager
def foreign_code() -> Iterator[None]:
    """While inside, in the main thread, a signal need not wait for the next `check_interrupt`."""
    global _depth
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def in_foreign_code() -> bool:
    """Whether the main thread runs a reward, which may hang and may be left at any moment."""
    return _depth > 0


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


def ctrl_c(number: int, frame: FrameType | None) -> None:
    """The handler of SIGINT of a command that is no run, or whose run has not begun.

    In an import, which takes seconds here, an exception may be swallowed by the package that tries
    what is there, or end the process in C++: there is nothing to lose yet, so that it ends at once.
    """
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def raises() -> bool:
    """Whether Ctrl-C raises KeyboardInterrupt in this thread, as it does outside a run."""
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(signal.SIGINT) in (signal.default_int_handler, ctrl_c)
