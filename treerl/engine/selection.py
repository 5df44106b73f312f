"""Which sampled edges are trained."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction as Exact
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Le
from torch import Tensor

from treerl.engine.component import Component
from treerl.engine.noise import numbers
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec


class Selection(Component, ABC):
    """Chooses the edges that an update trains, all of which were sampled."""

    @abstractmethod
    def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
        """Whether the edge into each node is trained, `[N]` bool; `advantage` is `[N]`."""

    def decisions(self, spec: TreeSpec) -> int:
        """Nodes of one tree that an update evaluates, for the plan; at most all of them."""
        return spec.decisions

    def edges(self, spec: TreeSpec) -> float:
        """Expected number of trained edges of one tree, for the plan."""
        return spec.edges


@dataclass(frozen=True)
class All(Selection):
    """Every sampled edge."""

    def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
        return tree.stochastic


@dataclass(frozen=True)
class NodeShare(Selection, ABC):
    """What the selections of so many nodes for each tree have in common."""

    share: Annotated[float, Gt(0), Le(1)]  # rounded down for each tree, but never none

    def decisions(self, spec: TreeSpec) -> int:
        return self.kept(spec.decisions)

    def edges(self, spec: TreeSpec) -> float:
        if spec.decisions == 0:
            return 0.0
        return spec.edges * self.kept(spec.decisions) / spec.decisions

    def kept(self, nodes: int) -> int:
        """How many of a tree's nodes are trained."""
        # exact: 0.6 of 10 nodes is 6, which 0.6 * 10 in floating point may not be
        return max(min(nodes, 1), int(Exact(str(self.share)) * nodes))


@dataclass(frozen=True)
class Share(NodeShare):
    """A random share of each tree's nodes, rounded down but never none (DanceGRPO, 2505.07818)."""

    share: Annotated[float, Gt(0), Le(1)] = 0.6

    def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
        nodes = torch.unique_consecutive(tree.parent[tree.edges])
        root = tree.roots()[nodes].numpy()
        order = np.lexsort((generator.random(len(nodes)), root))  # at random, tree by tree
        sizes = np.bincount(root)
        different, kind = np.unique(sizes, return_inverse=True)
        kept = np.array([self.kept(size) for size in different.tolist()], dtype=np.int64)[kind]
        chosen = order[numbers(sizes) < np.repeat(kept, sizes)]
        trained = torch.zeros(len(tree), dtype=torch.bool)
        trained[nodes[torch.from_numpy(chosen)]] = True
        inner = tree.parent.clamp(min=0)
        return tree.stochastic & trained[inner]
