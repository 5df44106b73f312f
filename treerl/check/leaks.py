"""Memory and files that a reward keeps from call to call: a slope, not one reading."""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import torch

from treerl.engine.task import Samples
from treerl.reward.call import Scorer, score

CALLS = 60
WARM_UP = 20  # calls that fill caches and import what is imported late
ENOUGH = 40  # calls that a verdict needs
PATIENCE = 120.0  # seconds for all of them
_SURE = 2.58  # standard deviations: 99 %

# what is counted: in what unit, and how much of it a call may keep
_LIMITS = {"MiB of memory": 1 / 32, "MiB of GPU memory": 1 / 32, "open files": 0.5}


@dataclass(frozen=True)
class Kept:
    """What was kept a call of `what`: at least `least`, with 99 % confidence."""

    what: str
    median: float
    least: float


def kept(name: str, scorer: Scorer, samples: Samples) -> list[Kept] | None:
    """What calls of a reward keep; None when they are too slow, or the system does not say.

    Every call gets samples of its own, so that a reward that keeps its samples is found.
    """
    rows: list[dict[str, float]] = []
    end = monotonic() + PATIENCE
    with _frozen():
        while len(rows) < CALLS and monotonic() < end:
            score(name, scorer, Samples(samples.images.clone(), samples.tasks, samples.group))
            gc.collect()
            rows.append(_held())
    if len(rows) < ENOUGH or not rows[0]:
        return None
    late = rows[min(WARM_UP, len(rows) - WARM_UP) :]
    leaks = []
    for what in rows[0]:
        median, least = slope(np.array([row[what] for row in late]))
        if least > _LIMITS[what]:
            leaks.append(Kept(what, median, least))
    return leaks


def slope(series: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float]:
    """Theil and Sen's slope of a series `[n]`: the median over all pairs, and its lower bound.

    The bound counts pairs by Kendall's variance, so that a few jumps, however high, do not move it.
    """
    count = len(series)
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((series[second] - series[first]) / (second - first))
    spread = _SURE * np.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    lower = max(0, int((len(slopes) - spread) / 2))
    return float(np.median(slopes)), float(slopes[lower])


@contextmanager
def _frozen() -> Iterator[None]:
    """While inside, collecting garbage looks at new objects alone, which takes no time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _held() -> dict[str, float]:
    """What this process holds; what the system does not say is left out.

    Memory is read after the allocator has given back its free pages, without which a busy machine's
    threads look like a leak.
    """
    held = {}
    try:
        held["open files"] = float(len(os.listdir("/proc/self/fd")))
        ctypes.CDLL(None).malloc_trim(0)
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        held["MiB of memory"] = int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, AttributeError):  # no /proc, or no malloc_trim
        pass
    if torch.cuda.is_available():
        held["MiB of GPU memory"] = torch.cuda.memory_allocated() / 2**20
    return held
