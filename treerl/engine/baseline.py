"""What a node's value is compared with, to make the advantage of the edge into it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from treerl.engine.component import Component
from treerl.engine.normaliser import Tolerance
from treerl.engine.tree import Tree
from treerl.engine.weighting import Backup


@dataclass(frozen=True)
class Reference:
    """The advantage is (value - centre) / scale; scale 0 is a group without spread: advantage 0."""

    centre: Tensor  # [N] float64
    scale: Tensor  # [N] float64; used only when advantages are normalised


class Baseline(Component, ABC):
    """Compares values with what would have been expected.

    It is given the weights that made them, since a mean under other weights would not cancel. A
    critic reads the latents (`tree.at`) and the tasks, and learns in `observe`.
    """

    needs_siblings: ClassVar[bool] = False  # whether chains leave it nothing to compare
    needs_uncorrelated: ClassVar[bool] = False  # whether coupled noise of siblings would bias it

    @abstractmethod
    def __call__(self, tree: Tree, backup: Backup, tasks: Sequence[Any]) -> Reference:
        """The reference of every node; nodes with `tree.task == row` are of `tasks[row]`."""


@dataclass(frozen=True)
class Prompt(Baseline):
    """The mean of the prompt's leaves (TreeGRPO, arXiv 2512.08153 Eq. 9).

    An edge with m of n leaves below it learns (1 - m/n) times the exact gradient, for the mean
    contains its own leaves.
    """

    def __call__(self, tree: Tree, backup: Backup, tasks: Sequence[Any]) -> Reference:
        return Reference(_task_mean(tree, backup), torch.ones_like(backup.values))


@dataclass(frozen=True)
class Depth(Baseline):
    """Mean and std over the prompt's nodes of the same depth (BranchGRPO, arXiv 2509.06040)."""

    tolerance: Tolerance = 1e-6

    def __call__(self, tree: Tree, backup: Backup, tasks: Sequence[Any]) -> Reference:
        return _grouped(backup.values, _by_depth(tree), self.tolerance)


@dataclass(frozen=True)
class Siblings(Baseline):
    """Mean and std over the node's siblings (TreeRPO, arXiv 2506.05183); an only child has 0."""

    needs_siblings: ClassVar[bool] = True

    tolerance: Tolerance = 1e-6

    def __call__(self, tree: Tree, backup: Backup, tasks: Sequence[Any]) -> Reference:
        roots = tree.parent == Tree.NO_PARENT
        group = torch.where(roots, torch.arange(len(tree)), len(tree) + tree.parent)
        return _grouped(backup.values, group, self.tolerance)


@dataclass(frozen=True)
class ParentGain(Baseline):
    """The parent's value: A(u→v) = V(v) - V(u).

    As DenseGRPO (arXiv 2601.20218), with backed-up values; with previews, the gain of each step.
    """

    needs_siblings: ClassVar[bool] = True

    def __call__(self, tree: Tree, backup: Backup, tasks: Sequence[Any]) -> Reference:
        centre = backup.values.clone()
        inner = tree.parent != Tree.NO_PARENT
        centre[inner] = backup.values[tree.parent[inner]]
        return Reference(centre, torch.ones_like(centre))


@dataclass(frozen=True)
class StepGain(Baseline):
    """The gain over the parent, standardised among the gains of the prompt at that step.

    With previews the step credit of Stepwise-Flow-GRPO (arXiv 2603.28718): g = r(x̂₀ after the
    step) - r(x̂₀ before it), compared with what the same step gained in the prompt's other samples.
    """

    needs_siblings: ClassVar[bool] = True

    tolerance: Tolerance = 1e-6

    def __call__(self, tree: Tree, backup: Backup, tasks: Sequence[Any]) -> Reference:
        start = backup.values.clone()
        inner = tree.parent != Tree.NO_PARENT
        start[inner] = backup.values[tree.parent[inner]]
        gains = _grouped(backup.values - start, _by_depth(tree), self.tolerance)
        return Reference(start + gains.centre, gains.scale)


@dataclass(frozen=True)
class LeaveSubtreeOut(Baseline):
    """The mean of the prompt's leaves that are not below the node.

    Under uniform weights unbiased at every depth. An edge that carries all leaves of its prompt
    has nothing left to be compared with: advantage 0.
    """

    needs_uncorrelated: ClassVar[bool] = True

    def __call__(self, tree: Tree, backup: Backup, tasks: Sequence[Any]) -> Reference:
        total = _task_mean(tree, backup)
        rest = 1 - backup.shares
        alone = rest < 1e-9
        outside = (total - _below(tree, backup)) / rest.masked_fill(alone, 1.0)
        return Reference(torch.where(alone, backup.values, outside), torch.ones_like(total))


def _task_mean(tree: Tree, backup: Backup) -> Tensor:
    """The weighted mean of the leaves of each node's task `[N]`."""
    roots = torch.arange(tree.sizes[0])
    mean = torch.zeros(int(tree.task.max()) + 1, dtype=torch.float64)
    mean.index_add_(0, tree.task[roots], _below(tree, backup)[roots])
    return mean[tree.task]


def _below(tree: Tree, backup: Backup) -> Tensor:
    """Σ share · value over the leaves below each node `[N]`, itself included.

    That is the node's own share · value, but where an inner node was scored by itself.
    """
    below = torch.zeros_like(backup.values)
    below[tree.leaves] = (backup.shares * backup.values)[tree.leaves]
    for number in range(tree.depth, 0, -1):
        level = tree.level(number)
        below.index_add_(0, tree.parent[level], below[level].clone())
    return below


def _by_depth(tree: Tree) -> Tensor:
    """A number `[N]` for each task and depth."""
    return tree.step * (int(tree.task.max()) + 1) + tree.task


def _grouped(value: Tensor, group: Tensor, tolerance: float) -> Reference:
    _, index, size = torch.unique(group, return_inverse=True, return_counts=True)
    zeros = torch.zeros(len(size), dtype=torch.float64)
    mean = zeros.index_add(0, index, value) / size
    spread = zeros.index_add(0, index, (value - mean[index]).square()).div(size).sqrt()
    # values are standardised within the prompt: their own scale is 1, the tolerance a plain number
    return Reference(mean[index], torch.where(spread > tolerance, spread, 0.0)[index])
