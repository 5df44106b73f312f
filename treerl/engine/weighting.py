"""How siblings are weighed in their parent's value, and the backing-up of scores that uses it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from treerl.engine.component import Component
from treerl.engine.tree import Tree
from treerl.errors import NumericsError

Temperature = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class Siblings:
    """The children of P nodes that have k children each, all at one step."""

    value: Tensor  # [P, k] float64, backed-up scores in the normaliser's unit
    log_prob: Tensor  # [P, k] float64, under the policy that took the edge, mean over dimensions
    dims: int  # D: `dims * log_prob` is the log-density itself
    step: int  # steps that the parents have taken
    steps: int  # T
    depth: int  # sampled edges from the root to the children, these included: 1, 2, ...
    iteration: int


class Weighting(Component, ABC):
    """Weighs siblings: non-negative weights that sum to 1 over the last dimension."""

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
    """softmax(log π / (D τ)) (arXiv 2512.08153 Eq. 11): uniform to ±0.3 % for images."""

    temperature: Temperature = 1.0  # τ

    def __call__(self, siblings: Siblings) -> Tensor:
        return torch.softmax(siblings.log_prob / self.temperature, dim=1)


@dataclass(frozen=True)
class SoftmaxSumLogProb(Weighting):
    """softmax(log π / τ) of the log-density itself: one-hot in high dimension, but for τ near D."""

    temperature: Temperature = 1.0  # τ

    def __call__(self, siblings: Siblings) -> Tensor:
        return torch.softmax(siblings.log_prob * siblings.dims / self.temperature, dim=1)


@dataclass(frozen=True)
class SoftmaxValue(Weighting):
    """softmax(value / τ): an optimistic value, between the mean and the best."""

    temperature: Temperature = 1.0  # τ

    def __call__(self, siblings: Siblings) -> Tensor:
        return torch.softmax(siblings.value / self.temperature, dim=1)


@dataclass(frozen=True)
class Backup:
    """Every node's value, and the share that it has in its task's value."""

    values: Tensor  # [N] float64, V(u) = Σ_c w_c V(c), or the node's score where it was scored
    shares: Tensor  # [N] float64, product of the weights from the root down; roots share 1 evenly


def back_up(tree: Tree, values: Tensor, weighting: Weighting, iteration: int = 0) -> Backup:
    """Carry scores `[N]` (float64, NaN where a node has none) to the roots, and the weights down.

    Leaves must be scored; an inner node that is scored keeps its own score, as with previews.
    """
    value = values.double().clone()
    scored = ~torch.isnan(value)
    weight = torch.ones(len(tree), dtype=torch.float64)
    for number in range(tree.depth, 0, -1):
        for children in _families(tree, number):
            parent = tree.parent[children[:, 0]]
            weight[children] = _weigh(tree, value, children, weighting, iteration)
            backed_up = (weight[children] * value[children]).sum(1)
            value[parent] = torch.where(scored[parent], value[parent], backed_up)
    roots = torch.arange(tree.sizes[0])
    weight[roots] = 1 / torch.bincount(tree.task[roots])[tree.task[roots]].double()
    for number in range(1, len(tree.sizes)):
        level = tree.level(number)
        weight[level] *= weight[tree.parent[level]]
    return Backup(value, weight)


def _families(tree: Tree, number: int) -> list[Tensor]:
    """The nodes of a level by family `[P, k]`, one tensor for each number of siblings k.

    Parents (0 0 1 2 2) of nodes (3 4 5 6 7) give [[5]] and [[3, 4], [6, 7]].
    """
    level = tree.level(number)
    nodes = torch.arange(level.start, level.stop)
    parents = tree.parent[level]
    _, family, size = torch.unique_consecutive(parents, return_inverse=True, return_counts=True)
    return [nodes[size[family] == k].view(-1, k) for k in size.unique().tolist()]


def _sampled_edges(tree: Tree, node: int) -> int:
    """How many edges from the root to a node were sampled, the one into it included."""
    count = 0
    while int(tree.parent[node]) != Tree.NO_PARENT:
        count += int(tree.stochastic[node])
        node = int(tree.parent[node])
    return count


def _weigh(
    tree: Tree, value: Tensor, children: Tensor, weighting: Weighting, iteration: int
) -> Tensor:
    if children.shape[1] == 1:
        return torch.ones(children.shape, dtype=torch.float64)
    parent = int(tree.parent[children[0, 0]])
    siblings = Siblings(
        value=value[children],
        log_prob=tree.log_prob[children],
        dims=tree.dims,
        step=int(tree.step[parent]),
        steps=tree.steps,
        depth=_sampled_edges(tree, int(children[0, 0])),
        iteration=iteration,
    )
    weight = weighting(siblings)
    name = f"weighting {type(weighting).__name__}"
    if not isinstance(weight, Tensor) or weight.shape != children.shape:
        got = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise NumericsError(f"{name}: expected shape {tuple(children.shape)}, got {got}")
    weight = weight.double()
    off = (weight.sum(1) - 1).abs().max()
    if not bool(torch.isfinite(weight).all()) or bool((weight < 0).any()) or float(off) > 1e-6:
        row = weight[0].tolist()
        raise NumericsError(f"{name}: expected finite weights >= 0 that sum to 1, got {row}")
    return weight
