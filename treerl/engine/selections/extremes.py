"""Pruning by width: the paths to the best and the worst leaves."""

from dataclasses import dataclass
from math import comb
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from treerl.engine.noise import numbers
from treerl.engine.selection import Selection
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec


@dataclass(frozen=True)
class Extremes(Selection):
    """The edges above each tree's best and worst `count` leaves (BranchGRPO, arXiv 2509.06040).

    Advantages were made of all leaves before; what is pruned is the backward pass alone.
    """

    count: Annotated[int, Ge(1), Le(10**6)] = 4  # b, leaves of either kind

    def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
        leaves = tree.leaves
        root = tree.roots()[leaves].numpy()
        order = np.lexsort((advantage[leaves].numpy(), root))  # the worst first, tree by tree
        sizes = np.bincount(root)
        rank = numbers(sizes)
        best = rank >= np.repeat(sizes, sizes) - self.count
        worst = rank < self.count
        kept = torch.zeros(len(tree), dtype=torch.bool)
        kept[leaves[torch.from_numpy(order[worst | best])]] = True
        for move in range(tree.depth, 0, -1):
            level = tree.level(move)
            kept[tree.parent[level][kept[level]]] = True
        return tree.stochastic & kept

    def decisions(self, spec: TreeSpec) -> int:
        widths = spec.widths[:-1]
        most = 2 * self.count
        return sum(
            min(width, most) for width, here in zip(widths, spec.stochastic, strict=True) if here
        )

    def edges(self, spec: TreeSpec) -> float:
        widths = spec.widths[1:]
        return sum(
            self._above(width, spec.leaves)
            for width, here in zip(widths, spec.stochastic, strict=True)
            if here
        )

    def _above(self, width: int, leaves: int) -> float:
        """Expected nodes of a level with a kept leaf below, were the leaves' ranks random."""
        kept = min(2 * self.count, leaves)
        below = leaves // width
        return width * (1 - comb(leaves - below, kept) / comb(leaves, kept))
