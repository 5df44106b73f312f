"""Processes that a reward starts in the process of the run, and would leave behind."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

Started = tuple[int, str]  # a process and when it was started, as numbers are given again


@dataclass
class Children:
    """Those that were started while `noted`; systems without /proc know of none."""

    _noted: set[Started] = field(default_factory=set)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """While inside, a process that is started here is taken for the reward's."""
        before = _children(os.getpid())
        try:
            yield
        finally:
            self._noted |= _children(os.getpid()) - before

    def end(self) -> None:
        """Kills what still lives of them, with all that they started."""
        for process in self._noted & _children(os.getpid()):
            _kill(process)
        self._noted.clear()


def _kill(process: Started) -> None:
    number, _ = process
    below = _children(number)  # read first: they get another parent
    with suppress(ProcessLookupError, PermissionError):
        os.kill(number, signal.SIGKILL)
    for child in below:
        _kill(child)


def _children(parent: int) -> set[Started]:
    processes = set()
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):
            for number in path.read_text().split():
                processes.add((int(number), _start(int(number))))
    return processes


def _start(number: int) -> str:
    """When a process was started, in ticks since the machine was; empty when it has gone."""
    with suppress(OSError):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return fields[19]
    return ""
