"""Which nodes each optimizer step trains, and with what weight each of their edges counts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from treerl.engine.tree import Tree

Reduction = Literal["nodes", "edges", "depths"]


@dataclass(frozen=True)
class Minibatch:
    """Nodes that go through the network together, with all their trained edges."""

    parents: Tensor  # [rows] nodes; the last chunk is padded with repeats of its first
    children: Tensor  # [E] the nodes that their edges lead to
    owner: Tensor  # [E] index into `parents`
    weight: Tensor  # [E] float64, so that the sum over an optimizer step's minibatches is its loss
    real: int  # parents that are not padding

    def halves(self) -> "list[Minibatch]":
        """The same nodes in two minibatches of half as many rows, or in one if they fit."""
        rows = -(-len(self.parents) // 2)
        parts = []
        for low in range(0, self.real, rows):
            parents = self.parents[low : low + rows]
            padding = parents[:1].expand(rows - len(parents))
            inside = (self.owner >= low) & (self.owner < low + rows)
            parts.append(
                Minibatch(
                    parents=torch.cat([parents, padding]),
                    children=self.children[inside],
                    owner=self.owner[inside] - low,
                    weight=self.weight[inside],
                    real=min(self.real - low, rows),
                )
            )
        return parts


def minibatches(
    tree: Tree,
    trained: Tensor,
    optimizer_steps: int,
    rows: int,
    generator: np.random.Generator,
    reduction: Reduction = "nodes",
) -> list[list[Minibatch]]:
    """The nodes with trained edges `[N]` in random order, cut into optimizer steps of chunks.

    Of a forest that several processes grew, each gets the nodes of its own trees, with the weights
    that they have among all.

    `reduction` says what a step's loss is: "nodes" sums over siblings and averages over nodes (the
    TreeGRPO authors' code), "edges" averages over edges, "depths" gives every depth of the tree the
    same weight. Boundaries follow from the node count alone: no gradient is left for the next
    iteration.
    """
    edges = (trained & tree.stochastic).nonzero().flatten()
    nodes = torch.unique_consecutive(tree.parent[edges])
    order = generator.permutation(nodes.numpy())
    parts = np.array_split(order, optimizer_steps)
    return [_step(tree, edges, torch.from_numpy(part), rows, reduction) for part in parts]


def _step(
    tree: Tree, edges: Tensor, nodes: Tensor, rows: int, reduction: Reduction
) -> list[Minibatch]:
    # edges are sorted by parent, so the edges of a node lie side by side: with parents (0 0 2) of
    # the edges (4 5 6), node 2 has count 1 and its first edge stands at place 2
    parents = tree.parent[edges]
    first = torch.searchsorted(parents, nodes)
    count = torch.searchsorted(parents, nodes, right=True) - first
    weight = _weights(tree, nodes, count, reduction)
    kept = tree.slot[nodes] != Tree.DROPPED  # after the weights: they are those of all processes
    nodes = nodes[kept]
    first = first[kept]
    count = count[kept]
    weight = weight[kept]
    batches = []
    for low in range(0, len(nodes), rows):
        part = slice(low, low + rows)
        real = nodes[part]
        owner = torch.arange(len(real)).repeat_interleave(count[part])
        # counts (2, 1) give owners (0 0 1) and ranks among siblings (0 1 0)
        begin = count[part].cumsum(0) - count[part]
        rank = torch.arange(len(owner)) - begin[owner]
        children = edges[first[part][owner] + rank]
        padding = real[:1].expand(rows - len(real))
        parents_padded = torch.cat([real, padding])
        batches.append(Minibatch(parents_padded, children, owner, weight[part][owner], len(real)))
    return batches


def _weights(tree: Tree, nodes: Tensor, count: Tensor, reduction: Reduction) -> Tensor:
    """The weight `[n]` of each edge of each node."""
    if reduction == "nodes":
        return torch.full((len(nodes),), 1 / max(len(nodes), 1), dtype=torch.float64)
    if reduction == "edges":
        return torch.full((len(nodes),), 1 / max(int(count.sum()), 1), dtype=torch.float64)
    _, depth = torch.unique(tree.step[nodes], return_inverse=True)
    edges = torch.bincount(depth, weights=count.double())
    return 1 / (len(edges) * edges[depth])
