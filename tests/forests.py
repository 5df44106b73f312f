"""Trees made by hand: complete ones, ragged ones, and the same tree in another order."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from treerl.engine.normaliser import Centred, Scores, standardise
from treerl.engine.tree import Tree


def forest(
    parents: Sequence[Tensor], task: Tensor, log_prob: Tensor, stochastic: Tensor, dims: int = 2
) -> Tree:
    """A tree from the parents of each level below the roots, as indices into the level above."""
    sizes = (len(task), *(len(level) for level in parents))
    count = sum(sizes)
    labels = [task]
    parent = [torch.full((len(task),), Tree.NO_PARENT)]
    begin = 0  # of the level above
    for level, size in zip(parents, sizes, strict=False):
        labels.append(labels[-1][level])
        parent.append(level + begin)
        begin += size
    return Tree(
        x=torch.zeros(count, dims, dtype=torch.float64),
        slot=torch.arange(count),
        task=torch.cat(labels),
        parent=torch.cat(parent),
        log_prob=torch.where(stochastic, log_prob.double(), float("nan")),
        stochastic=stochastic,
        step=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        key=torch.arange(count),
        sizes=sizes,
    )


def complete(tasks: int, branching_factor: int, depth: int, seed: int = 0, trees: int = 1) -> Tree:
    """`trees` trees for each task that split `branching_factor` ways at each of `depth` steps."""
    levels = []
    width = tasks * trees
    for _ in range(depth):
        levels.append(torch.arange(width).repeat_interleave(branching_factor))
        width *= branching_factor
    count = tasks * trees + sum(len(level) for level in levels)
    generator = torch.Generator().manual_seed(seed)
    log_prob = torch.randn(count, generator=generator, dtype=torch.float64)
    stochastic = torch.arange(count) >= tasks * trees
    return forest(levels, torch.arange(tasks).repeat_interleave(trees), log_prob, stochastic)


def ragged(seed: int, tasks: int = 3, depth: int = 4, dims: int = 2) -> Tree:
    """Trees with 1 to 3 children a node, 1 to 3 trees a task, and a deterministic tail."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        return torch.randint(1, 4, (count,), generator=generator)

    task = torch.arange(tasks).repeat_interleave(draw(tasks))
    levels = []
    size = len(task)
    for _ in range(depth):
        levels.append(torch.arange(size).repeat_interleave(draw(size)))
        size = len(levels[-1])
    levels.append(torch.arange(size))
    count = len(task) + sum(len(level) for level in levels)
    place = torch.arange(count)
    stochastic = (place >= len(task)) & (place < count - size)
    return forest(levels, task, torch.randn(count, generator=generator), stochastic, dims)


def permuted(tree: Tree, seed: int, roots: bool = True) -> tuple[Tree, Tensor]:
    """The same forest, siblings (and roots) in random order, and which old node each new one is."""
    generator = torch.Generator().manual_seed(seed)

    def shuffled(nodes: Tensor) -> Tensor:
        return nodes[torch.randperm(len(nodes), generator=generator)]

    top = torch.arange(tree.sizes[0])
    levels = [shuffled(top) if roots else top]
    for _ in tree.sizes[1:]:
        families = []
        for node in levels[-1].tolist():
            families.append(shuffled((tree.parent == node).nonzero().flatten()))
        levels.append(torch.cat(families))
    order = torch.cat(levels)
    place = order.argsort()
    parent = tree.parent[order]
    moved = replace(
        tree,
        slot=tree.slot[order],
        task=tree.task[order],
        parent=torch.where(parent == Tree.NO_PARENT, parent, place[parent]),
        log_prob=tree.log_prob[order],
        stochastic=tree.stochastic[order],
        step=tree.step[order],
        key=tree.key[order],
    )
    return moved, order


def scores(tree: Tree, seed: int, scale: float = 1.0) -> Tensor:
    """A random score for each leaf `[L]`."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(tree.sizes[-1], generator=generator, dtype=torch.float64)


def on_leaves(tree: Tree, score: Tensor) -> Tensor:
    """Leaf scores `[L, ...]` as scores of all nodes `[N, ...]`: NaN where a node has none."""
    values = torch.full((len(tree), *score.shape[1:]), float("nan"), dtype=torch.float64)
    values[tree.leaves] = score.double()
    return values


def standardised(tree: Tree, score: Tensor, tolerance: float = 1e-6) -> Scores:
    """Leaf scores `[L]` in units of their task's spread."""
    return standardise(tree, on_leaves(tree, score), tolerance)


def centred(tree: Tree, score: Tensor, tolerance: float = 1e-6) -> Scores:
    """Leaf scores `[L]` less their task's mean, in their own unit."""
    return Centred(tolerance)(tree, on_leaves(tree, score)[:, None], torch.ones(1))


def moved_scores(tree: Tree, score: Tensor, order: Tensor) -> Tensor:
    """The scores of the permuted tree's leaves."""
    return score[order[-tree.sizes[-1] :] - int(tree.leaves[0])]
