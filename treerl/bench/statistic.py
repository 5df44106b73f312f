"""Interquartile means with stratified bootstrap intervals (arXiv 2108.13264), and costs to reach.

The method is rliable's; tests/test_bench_statistic.py holds figures that rliable 1.2.0 gave.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REPEATS = 20_000  # resamples of an interval
ENOUGH = 5  # runs, below which an interval is a rough guess
_SHARE = 0.25  # cut off at each end
_LEVEL = 95.0  # percent of the resamples that the interval holds

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An interquartile mean with its 95 % interval."""

    value: float
    low: float
    high: float
    runs: int  # that it is over

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0, and is over enough runs to say so."""
        return self.runs >= ENOUGH and (self.low > 0 or self.high < 0)


def iqm(scores: Floats) -> Floats:
    """The mean of the middle half along the last axis: a quarter, rounded down, is cut at each end.

    Of 3 values none is cut, of 4 to 7 the smallest and the largest.
    """
    ordered = np.sort(scores, axis=-1)
    count = scores.shape[-1]
    cut = int(_SHARE * count)
    middle: Floats = ordered[..., cut : count - cut].mean(-1)
    return middle


def estimate(scores: Floats, repeats: int = REPEATS, seed: int = 0) -> Estimate:
    """Of scores `[R, M]`, R runs on each of M tasks: the IQM of them all, and its interval.

    A resample draws R runs with replacement within every task, the strata; the interval runs from
    the 2.5th to the 97.5th percentile of the resamples' IQMs. `seed` makes it the same every time.
    """
    runs, tasks = scores.shape
    generator = np.random.default_rng(seed)
    rows = generator.integers(runs, size=(repeats, runs, tasks))
    resampled = scores[rows, np.arange(tasks)].reshape(repeats, -1)
    tail = (100 - _LEVEL) / 2
    low, high = np.percentile(iqm(resampled), (tail, 100 - tail))
    return Estimate(float(iqm(scores.reshape(-1))), float(low), float(high), runs)


def of(values: Sequence[float]) -> Estimate | None:
    """The estimate over seeds on one task; None without any."""
    if not len(values):
        return None
    return estimate(np.array(values, dtype=np.float64)[:, None])


def isotonic(values: Sequence[float]) -> list[float]:
    """The nearest curve that never falls, in least squares: neighbours that fall are pooled."""
    pools: list[tuple[float, int]] = []  # (mean, how many)
    for value in values:
        mean = float(value)
        count = 1
        while pools and pools[-1][0] > mean:
            before, others = pools.pop()
            mean = (mean * count + before * others) / (count + others)
            count += others
        pools.append((mean, count))
    return [mean for mean, count in pools for _ in range(count)]


def cost_to_reach(level: float, costs: Sequence[float], scores: Sequence[float]) -> float | None:
    """Where the isotonic fit of a curve reaches a level, linear between marks; None if it doesn't.

    A single lucky mark therefore does not count as reaching.
    """
    heights = isotonic(scores)
    if heights[0] >= level:
        return costs[0]
    for place in range(1, len(heights)):
        if heights[place] >= level:
            rise = heights[place] - heights[place - 1]
            share = (level - heights[place - 1]) / rise
            return costs[place - 1] + share * (costs[place] - costs[place - 1])
    return None
