"""How siblings are weighed in their parent's value, and the backing-up of leaf scores that uses it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.tree import Tree
from treerl.errors import NumericsError


@dataclass(frozen=True)
class Siblings:
    """The children of P nodes that have k children each."""

    value: Tensor  # [P, k] float64, backed-up scores, standardised within their prompt
    log_prob: (
        Tensor  # [P, k] float64, of the edge under the policy that took it, mean over dimensions
    )
    dims: int  # D: `dims * log_prob` is the log-density itself


class Weighting(ABC):
    """Weighs siblings; a plug-in returns non-negative weights that sum to 1 over the last dimension."""

    @abstractmethod
    def __call__(self, siblings: Siblings) -> Tensor:
        """The weights `[P, k]`."""


@dataclass(frozen=True)
class Uniform(Weighting):
    """1/k: the unbiased Monte-Carlo value, and what the TreeGRPO authors' code does."""

    def __call__(self, siblings: Siblings) -> Tensor:
        return torch.full_like(siblings.value, 1 / siblings.value.shape[1])


@dataclass(frozen=True)
class SoftmaxMeanLogProb(Weighting):
    """softmax of the mean log-prob over `temperature` (arXiv 2512.08153 Eq. 11): uniform to ±0.3 % for images."""

    temperature: float = 1.0

    def __call__(self, siblings: Siblings) -> Tensor:
        return torch.softmax(siblings.log_prob / self.temperature, dim=1)


@dataclass(frozen=True)
class SoftmaxSumLogProb(Weighting):
    """softmax of the log-density itself over `temperature`: one-hot in high dimension unless the temperature is ~D."""

    temperature: float = 1.0

    def __call__(self, siblings: Siblings) -> Tensor:
        return torch.softmax(siblings.log_prob * siblings.dims / self.temperature, dim=1)


@dataclass(frozen=True)
class SoftmaxValue(Weighting):
    """softmax of the standardised value over `temperature`: an optimistic value, between the mean and the best."""

    temperature: float = 1.0

    def __call__(self, siblings: Siblings) -> Tensor:
        return torch.softmax(siblings.value / self.temperature, dim=1)


@dataclass(frozen=True)
class Values:
    """Every node's value, and the share that it has in its prompt's value."""

    value: Tensor  # [N] float64, V(u) = Σ_c w_c V(c)
    share: Tensor  # [N] float64, product of the weights from the root down; a prompt's roots share 1 evenly


def back_up(tree: Tree, leaf: Tensor, weighting: Weighting) -> Values:
    """Carry leaf scores `[L]` (standardised, float64) to the roots, and the weights back down."""
    value = torch.zeros(len(tree), dtype=torch.float64)
    weight = torch.ones(len(tree), dtype=torch.float64)
    value[tree.leaves] = leaf.double()
    for step in range(len(tree.sizes) - 1, 0, -1):
        for children in _families(tree, step):
            weight[children] = _weigh(tree, value, children, weighting)
            value[tree.parent[children[:, 0]]] = (weight[children] * value[children]).sum(1)
    roots = torch.arange(tree.sizes[0])
    weight[roots] = 1 / torch.bincount(tree.prompt[roots])[tree.prompt[roots]].double()
    for step in range(1, len(tree.sizes)):
        level = tree.level(step)
        weight[level] *= weight[tree.parent[level]]
    return Values(value, weight)


def _families(tree: Tree, step: int) -> list[Tensor]:
    """The nodes of a level by family `[P, k]`, one tensor for each number of siblings k."""
    level = tree.level(step)
    nodes = torch.arange(level.start, level.stop)
    _, family, size = torch.unique_consecutive(
        tree.parent[level], return_inverse=True, return_counts=True
    )
    return [nodes[size[family] == k].view(-1, k) for k in size.unique().tolist()]


def _weigh(tree: Tree, value: Tensor, children: Tensor, weighting: Weighting) -> Tensor:
    if children.shape[1] == 1:
        return torch.ones(children.shape, dtype=torch.float64)
    weight = weighting(Siblings(value[children], tree.log_prob[children], tree.dims))
    name = type(weighting).__name__
    if weight.shape != children.shape:
        raise NumericsError(
            f"weighting {name}: expected shape {tuple(children.shape)}, got {tuple(weight.shape)}"
        )
    weight = weight.double()
    off = (weight.sum(1) - 1).abs().max()
    if not bool(torch.isfinite(weight).all()) or bool((weight < 0).any()) or float(off) > 1e-6:
        raise NumericsError(
            f"weighting {name}: expected finite weights >= 0 that sum to 1, got {weight[0].tolist()}"
        )
    return weight
