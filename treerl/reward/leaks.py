"""Memory and file handles that a reward keeps from call to call, found long before they run out."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CALLS = 10  # before a verdict: caches and lazy imports fill up in the first ones
GROWTH = 2**20  # bytes that a call may keep, on average
HANDLES = 1.0  # files that a call may leave open, on average


@dataclass
class Leaks:
    """What the process held before and after every call of each reward; nothing where the system does not say."""

    kept: dict[str, list[tuple[int, int]]] = field(
        default_factory=dict
    )  # bytes and handles by call
    told: set[str] = field(default_factory=set)

    @contextmanager
    def watched(self, name: str) -> Iterator[None]:
        """Counts what a call of this reward keeps."""
        before = _held()
        yield
        after = _held()
        if before is not None and after is not None:
            self.kept.setdefault(name, []).append((after[0] - before[0], after[1] - before[1]))

    def found(self) -> list[str]:
        """Rewards that kept more and more over their last calls, in words, each once."""
        new = []
        for name, kept in self.kept.items():
            late = kept[CALLS:]  # the first ones warm up
            if name in self.told or len(late) < CALLS:
                continue
            size, handles = (sum(one[part] for one in late) / len(late) for part in (0, 1))
            if size > GROWTH or handles >= HANDLES:
                self.told.add(name)
                new.append(
                    f"reward {name} keeps {size / 2**20:.1f} MiB and {handles:.1f} open files a call: it leaks"
                )
        return new


def _held() -> tuple[int, int] | None:
    """Resident bytes and open files of this process."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))
    except (OSError, ValueError):
        return None
