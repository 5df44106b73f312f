"""Trees made by hand: complete ones, ragged ones, and the same tree in another order."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from treerl.engine.tree import Tree


def forest(
    parents: Sequence[Tensor], prompt: Tensor, log_prob: Tensor, stochastic: Tensor, dims: int = 2
) -> Tree:
    """A tree from the parents of each level below the roots, as indices into the level above."""
    sizes = (len(prompt), *(len(one) for one in parents))
    offset = [sum(sizes[:step]) for step in range(len(sizes))]
    count, label = sum(sizes), [prompt]
    for one in parents:
        label.append(label[-1][one])
    return Tree(
        x=torch.zeros(count, dims, dtype=torch.float64),
        slot=torch.arange(count),
        prompt=torch.cat(label),
        parent=torch.cat(
            [
                torch.full((len(prompt),), -1),
                *(one + offset[step] for step, one in enumerate(parents)),
            ]
        ),
        log_prob=torch.where(stochastic, log_prob.double(), float("nan")),
        stochastic=stochastic,
        step=torch.cat([torch.full((size,), step) for step, size in enumerate(sizes)]),
        key=torch.arange(count),
        sizes=sizes,
    )


def complete(prompts: int, branch: int, depth: int, seed: int = 0, roots: int = 1) -> Tree:
    """`roots` trees for each prompt that split `branch` ways at each of `depth` steps."""
    levels = [
        torch.arange(prompts * roots * branch**step).repeat_interleave(branch)
        for step in range(depth)
    ]
    count = prompts * roots + sum(len(one) for one in levels)
    generator = torch.Generator().manual_seed(seed)
    log_prob = torch.randn(count, generator=generator, dtype=torch.float64)
    stochastic = torch.arange(count) >= prompts * roots
    return forest(levels, torch.arange(prompts).repeat_interleave(roots), log_prob, stochastic)


def ragged(seed: int, prompts: int = 3, depth: int = 4, dims: int = 2) -> Tree:
    """Trees with 1 to 3 children at each node, 1 to 3 trees for each prompt, and a deterministic tail."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        return torch.randint(1, 4, (count,), generator=generator)

    prompt = torch.arange(prompts).repeat_interleave(draw(prompts))
    levels, size = [], len(prompt)
    for _ in range(depth):
        levels.append(torch.arange(size).repeat_interleave(draw(size)))
        size = len(levels[-1])
    levels.append(torch.arange(size))
    count = len(prompt) + sum(len(one) for one in levels)
    place = torch.arange(count)
    stochastic = (place >= len(prompt)) & (place < count - size)
    return forest(levels, prompt, torch.randn(count, generator=generator), stochastic, dims)


def permuted(tree: Tree, seed: int, roots: bool = True) -> tuple[Tree, Tensor]:
    """The same forest with siblings (and roots) in random order, and which old node each new one is."""
    generator = torch.Generator().manual_seed(seed)

    def shuffled(nodes: Tensor) -> Tensor:
        return nodes[torch.randperm(len(nodes), generator=generator)]

    top = torch.arange(tree.sizes[0])
    levels = [shuffled(top) if roots else top]
    for _ in tree.sizes[1:]:
        levels.append(
            torch.cat(
                [
                    shuffled((tree.parent == node).nonzero().flatten())
                    for node in levels[-1].tolist()
                ]
            )
        )
    order = torch.cat(levels)
    place = order.argsort()
    parent = tree.parent[order]
    moved = replace(
        tree,
        slot=tree.slot[order],
        prompt=tree.prompt[order],
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


def moved_scores(tree: Tree, score: Tensor, order: Tensor) -> Tensor:
    """The scores of the permuted tree's leaves."""
    return score[order[-tree.sizes[-1] :] - int(tree.leaves[0])]
