"""The standard streams, which a reward may close: what is opened next would then take their place,
and what the run prints would stand in a checkpoint."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_NAMES = ("stdin", "stdout", "stderr")
_Copies = dict[int, int]  # of the descriptors that were open


@contextmanager
def kept_streams() -> Iterator[list[str]]:
    """Puts the streams back at the end; the list then names those that were changed."""
    streams = {name: getattr(sys, name) for name in _NAMES}
    copies: _Copies = {}
    for number in range(len(_NAMES)):
        with suppress(OSError):  # one that was closed before
            copies[number] = os.dup(number)
    changed: list[str] = []
    try:
        yield changed
    finally:
        for number, name in enumerate(_NAMES):
            descriptor = _put_back(number, copies)
            if _reopen(name, streams[name]) or descriptor:
                changed.append(name)
        for copy in copies.values():
            os.close(copy)


def _put_back(number: int, copies: _Copies) -> bool:
    """Whether a descriptor had to be put back."""
    if number not in copies:
        return False
    with suppress(OSError):
        if os.path.samestat(os.fstat(number), os.fstat(copies[number])):
            return False
    os.dup2(copies[number], number)
    return True


def _reopen(name: str, stream: object) -> bool:
    """Whether `sys` had to be given a stream again: the one from before, or a new one."""
    now = getattr(sys, name)
    if now is stream and not getattr(now, "closed", False):
        return False
    if getattr(stream, "closed", False):
        mode = "r" if name == "stdin" else "w"
        stream = open(_NAMES.index(name), mode, encoding="utf-8", closefd=False)
    setattr(sys, name, stream)
    return True
