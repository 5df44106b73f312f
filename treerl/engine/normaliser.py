"""How the scores of K rewards become one comparable number a node."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from treerl.engine.component import Component
from treerl.engine.tree import Tree
from treerl.errors import NumericsError

Tolerance = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Scores:
    """One number a node, in the normaliser's unit."""

    values: Tensor  # [N] float64; NaN where a node was not scored
    spread: Tensor  # [P] float64, of each task's leaves; exactly 0 where they all score the same


def added(parts: Sequence[Scores]) -> Scores:
    """The sum of values, taught wherever one of them is (2510.01982 adds advantages likewise)."""
    values = torch.stack([part.values for part in parts]).sum(0)
    spread = torch.stack([part.spread for part in parts]).amax(0)
    return Scores(values, spread)


class Normaliser(Component, ABC):
    """Makes the scores of different tasks and rewards comparable."""

    # whether each reward is brought to a unit of its own before the sum: then weights alone count
    free_of_units: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, tree: Tree, scores: Tensor, weights: Tensor) -> Scores:
        """One number a node, of raw scores `[N, K]` (NaN where unscored) and reward weights `[K]`.

        A task whose leaves all score the same has spread 0 and values exactly 0. Leaves that are
        finished by several strides are normalised once for each.
        """


@dataclass(frozen=True)
class Standardised(Normaliser):
    """Each reward in units of its task's spread, then the weighted sum (TreeGRPO's experiments)."""

    free_of_units: ClassVar[bool] = True
    tolerance: Tolerance = 1e-6  # spread below which scores count as equal, relative to 1 + |mean|

    def __call__(self, tree: Tree, scores: Tensor, weights: Tensor) -> Scores:
        each = [standardise(tree, column, self.tolerance) for column in scores.unbind(1)]
        values = torch.stack([column.values for column in each], 1) @ weights.double()
        spread = torch.stack([column.spread for column in each], 1).amax(1)
        return Scores(values, spread)


@dataclass(frozen=True)
class Raw(Normaliser):
    """The weighted sum of the raw scores, in units of its task's spread (GRPO's)."""

    tolerance: Tolerance = 1e-6

    def __call__(self, tree: Tree, scores: Tensor, weights: Tensor) -> Scores:
        return standardise(tree, scores.double() @ weights.double(), self.tolerance)


@dataclass(frozen=True)
class Centred(Normaliser):
    """The weighted sum of the raw scores less its task's mean, in the reward's own unit."""

    tolerance: Tolerance = 1e-6

    def __call__(self, tree: Tree, scores: Tensor, weights: Tensor) -> Scores:
        moments = _moments(tree, scores.double() @ weights.double(), self.tolerance)
        return Scores(moments.centred, moments.spread)


@dataclass(frozen=True)
class GlobalStd(Normaliser):
    """The task's mean, and the std over all leaves of the iteration (Flow-GRPO as published).

    (r - mean_task) / std_all, arXiv 2505.05470 and its released `global_std`: a task whose leaves
    hardly differ teaches little, where its own std would blow the difference up.
    """

    tolerance: Tolerance = 1e-6

    def __call__(self, tree: Tree, scores: Tensor, weights: Tensor) -> Scores:
        total = scores.double() @ weights.double()
        moments = _moments(tree, total, self.tolerance)
        std = total[tree.leaves].std(unbiased=False)
        values = moments.centred / std if float(std) > 0 else moments.centred
        return Scores(values, moments.spread)


@dataclass(frozen=True)
class _Moments:
    centred: Tensor  # [N] float64, less the mean of the task's leaves; 0 where the task is flat
    spread: Tensor  # [P] float64, population std of the task's leaves; exactly 0 where it is flat


def standardise(tree: Tree, score: Tensor, tolerance: float = 1e-6) -> Scores:
    """(score - mean) / std of each task's leaves, all its trees together (2512.08153 Eq. 9).

    `score` `[N]` may be NaN at inner nodes; those that are scored are put on their leaves' scale.
    """
    moments = _moments(tree, score.double(), tolerance)
    scale = moments.spread.masked_fill(moments.spread == 0, 1.0)
    return Scores(moments.centred / scale[tree.task], moments.spread)


def _moments(tree: Tree, score: Tensor, tolerance: float) -> _Moments:
    leaf = score[tree.leaves]
    if not bool(torch.isfinite(leaf).all()):
        raise NumericsError("advantages: a score is not finite")
    task = tree.task[tree.leaves]
    count = int(task.max()) + 1
    zeros = torch.zeros(count, dtype=torch.float64)
    size = torch.bincount(task, minlength=count).clamp(min=1)
    mean = zeros.index_add(0, task, leaf) / size
    spread = zeros.index_add(0, task, (leaf - mean[task]).square()).div(size).sqrt()
    if not bool(torch.isfinite(spread).all()):
        raise NumericsError("advantages: scores are too large to have a finite spread")
    high = zeros.scatter_reduce(0, task, leaf, "amax", include_self=False)
    low = zeros.scatter_reduce(0, task, leaf, "amin", include_self=False)
    # where the usual (r - mean) / (std + ε) blows rounding errors up to ±1, equal is exactly 0
    flat = high - low <= tolerance * (1 + mean.abs())
    centred = score - mean[tree.task]
    centred = torch.where(flat[tree.task] & ~torch.isnan(centred), 0.0, centred)
    return _Moments(centred, spread.masked_fill(flat, 0.0))
