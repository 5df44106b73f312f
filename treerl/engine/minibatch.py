"""Which nodes each optimizer step trains, and with what weight each of their edges counts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from treerl.engine.branching import kept
from treerl.engine.tree import Tree

Reduce = Literal["nodes", "edges", "depths"]


@dataclass(frozen=True)
class Minibatch:
    """Nodes that go through the network together, with all their sampled edges."""

    parents: Tensor  # [rows] nodes; the last chunk is padded with repeats of its first
    children: Tensor  # [E] the nodes that their edges lead to
    owner: Tensor  # [E] index into `parents`
    weight: Tensor  # [E] float64, so that the sum over an optimizer step's minibatches is its loss
    real: int  # parents that are not padding


def minibatches(
    tree: Tree,
    updates: int,
    rows: int,
    generator: np.random.Generator,
    fraction: float = 1.0,
    reduce: Reduce = "nodes",
) -> list[list[Minibatch]]:
    """The trained nodes in random order, cut into `updates` optimizer steps of chunks of `rows` nodes.

    `reduce` says what a step's loss is: "nodes" sums over siblings and averages over nodes (the TreeGRPO authors'
    code), "edges" averages over edges, "depths" gives every depth of the tree the same weight. Boundaries follow from
    the node count alone: no gradient is left over for the next iteration.
    """
    nodes = generator.permutation(_trained(tree, fraction, generator).numpy())
    return [
        _step(tree, torch.from_numpy(part), rows, reduce) for part in np.array_split(nodes, updates)
    ]


def _trained(tree: Tree, fraction: float, generator: np.random.Generator) -> Tensor:
    """The nodes with sampled edges, or that share of them in every tree."""
    nodes: Tensor = torch.unique_consecutive(tree.parent[tree.edges])
    if fraction >= 1:
        return nodes
    root = torch.arange(len(tree))
    for step in range(1, len(tree.sizes)):
        level = tree.level(step)
        root[level] = root[tree.parent[level]]
    chosen = []
    for one in torch.unique(root[nodes]).tolist():
        own = nodes[root[nodes] == one]
        chosen.append(
            own[torch.from_numpy(generator.permutation(len(own))[: kept(len(own), fraction)])]
        )
    return torch.cat(chosen)


def _step(tree: Tree, nodes: Tensor, rows: int, reduce: Reduce) -> list[Minibatch]:
    edges = tree.edges
    first = torch.searchsorted(tree.parent[edges], nodes)
    count = torch.searchsorted(tree.parent[edges], nodes, right=True) - first
    weight = _weights(tree, nodes, count, reduce)
    found = []
    for low in range(0, len(nodes), rows):
        part = slice(low, low + rows)
        mine = nodes[part]
        owner = torch.arange(len(mine)).repeat_interleave(count[part])
        rank = torch.arange(len(owner)) - (count[part].cumsum(0) - count[part])[owner]
        padding = mine[:1].expand(rows - len(mine))
        children = edges[first[part][owner] + rank]
        found.append(
            Minibatch(torch.cat([mine, padding]), children, owner, weight[part][owner], len(mine))
        )
    return found


def _weights(tree: Tree, nodes: Tensor, count: Tensor, reduce: Reduce) -> Tensor:
    """The weight `[n]` of each edge of each node."""
    if reduce == "nodes":
        return torch.full((len(nodes),), 1 / len(nodes), dtype=torch.float64)
    if reduce == "edges":
        return torch.full((len(nodes),), 1 / int(count.sum()), dtype=torch.float64)
    _, depth = torch.unique(tree.step[nodes], return_inverse=True)
    edges = torch.bincount(depth, weights=count.double())
    return 1 / (len(edges) * edges[depth])
