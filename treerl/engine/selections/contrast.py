"""The nodes that teach most: those whose children turned out most different."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Le
from torch import Tensor

from treerl.engine.selection import NodeShare
from treerl.engine.tree import Tree


@dataclass(frozen=True)
class Contrast(NodeShare):
    """The share of an iteration's nodes whose siblings' advantages lie farthest apart.

    A pair of mirrored siblings has the gradient (A₁ - A₂) ∇ log p(z): a node whose children turned
    out alike costs a forward and a backward pass and moves next to nothing. Between Gaussians half
    of the nodes carry 93 % of the gradient, in its direction. Trees compete with each other, so
    prompts whose leaves agree leave their share to others; an only child counts by its own
    advantage. What it buys: docs/studies/treerl.md.
    """

    share: Annotated[float, Gt(0), Le(1)] = 0.5

    def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
        edges = tree.edges
        nodes, owner, count = torch.unique_consecutive(
            tree.parent[edges], return_inverse=True, return_counts=True
        )
        score = advantage[edges].double()
        mean = torch.zeros(len(nodes), dtype=torch.float64).index_add(0, owner, score) / count
        reference = torch.where(count > 1, mean, 0.0)  # an only child is compared with the prompt
        distance = (score - reference[owner]).square()
        spread = torch.zeros_like(mean).index_add(0, owner, distance)
        sizes = torch.bincount(tree.roots()[nodes])
        kept = sum(self.kept(size) for size in sizes.tolist())
        chosen = spread.argsort(descending=True, stable=True)[:kept]
        trained = torch.zeros(len(tree), dtype=torch.bool)
        trained[nodes[chosen]] = True
        return tree.stochastic & trained[tree.parent.clamp(min=0)]
