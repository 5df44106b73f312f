"""What a node's value is compared with, to make the advantage of the edge into it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.tree import Tree
from treerl.engine.weighting import Values


@dataclass(frozen=True)
class Reference:
    """The advantage is (value - centre) / scale; scale 0 says that the group has no spread: advantage 0."""

    centre: Tensor  # [N] float64
    scale: Tensor  # [N] float64; used only when advantages are normalised


class Baseline(ABC):
    """Compares values; it is given the weights that made them, since a mean under other weights would not cancel."""

    @abstractmethod
    def __call__(self, tree: Tree, values: Values) -> Reference:
        """The reference of every node, for values that are standardised within their prompt."""


@dataclass(frozen=True)
class Prompt(Baseline):
    """The mean of the prompt's leaves (TreeGRPO, arXiv 2512.08153 Eq. 9).

    An edge with m of n leaves below it learns (1 - m/n) times the exact gradient, for the mean contains its own leaves.
    """

    def __call__(self, tree: Tree, values: Values) -> Reference:
        return Reference(_prompt_mean(tree, values), torch.ones_like(values.value))


@dataclass(frozen=True)
class Depth(Baseline):
    """Mean and std over the prompt's nodes of the same depth (BranchGRPO, arXiv 2509.06040; Multi-GRPO)."""

    tolerance: float = 1e-6

    def __call__(self, tree: Tree, values: Values) -> Reference:
        group = tree.step * (int(tree.prompt.max()) + 1) + tree.prompt
        return _grouped(values.value, group, self.tolerance)


@dataclass(frozen=True)
class Siblings(Baseline):
    """Mean and std over the node's siblings (TreeRPO, arXiv 2506.05183); an only child has advantage 0."""

    tolerance: float = 1e-6

    def __call__(self, tree: Tree, values: Values) -> Reference:
        roots = tree.parent == Tree.NO_PARENT
        group = torch.where(roots, torch.arange(len(tree)), len(tree) + tree.parent)
        return _grouped(values.value, group, self.tolerance)


@dataclass(frozen=True)
class ParentGain(Baseline):
    """The parent's value: A(u→v) = V(v) - V(u) (as DenseGRPO, arXiv 2601.20218, with backed-up values)."""

    def __call__(self, tree: Tree, values: Values) -> Reference:
        centre = values.value.clone()
        inner = tree.parent != Tree.NO_PARENT
        centre[inner] = values.value[tree.parent[inner]]
        return Reference(centre, torch.ones_like(centre))


@dataclass(frozen=True)
class LeaveSubtreeOut(Baseline):
    """The mean of the prompt's leaves that are not below the node: under uniform weights unbiased at every depth.

    An edge that carries all leaves of its prompt has nothing left to be compared with: advantage 0.
    """

    def __call__(self, tree: Tree, values: Values) -> Reference:
        total = _prompt_mean(tree, values)
        rest = 1 - values.share
        alone = rest < 1e-9
        outside = (total - values.share * values.value) / rest.masked_fill(alone, 1.0)
        return Reference(torch.where(alone, values.value, outside), torch.ones_like(total))


def _prompt_mean(tree: Tree, values: Values) -> Tensor:
    """The weighted mean of each node's prompt `[N]`: of its roots' values, which weigh the same."""
    roots = torch.arange(tree.sizes[0])
    mean = torch.zeros(int(tree.prompt.max()) + 1, dtype=torch.float64)
    mean.index_add_(0, tree.prompt[roots], values.value[roots] * values.share[roots])
    return mean[tree.prompt]


def _grouped(value: Tensor, group: Tensor, tolerance: float) -> Reference:
    _, index, size = torch.unique(group, return_inverse=True, return_counts=True)
    zeros = torch.zeros(len(size), dtype=torch.float64)
    mean = zeros.index_add(0, index, value) / size
    spread = zeros.index_add(0, index, (value - mean[index]).square()).div(size).sqrt()
    # values are standardised within the prompt, so their own scale is 1 and the tolerance is a plain number
    return Reference(mean[index], torch.where(spread > tolerance, spread, 0.0)[index])
