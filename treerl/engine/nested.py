"""How much of the scores' variance each step decides, and how many leaves the leaves are worth.

Leaves below one node share all steps above it, so that n of them say less about their prompt than
n samples would. This is the analysis of variance of nested designs, with independent siblings:
mirrored ones contrast more, and their leaves are worth more than is said here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.tree import Tree


@dataclass(frozen=True)
class Nested:
    """The scores of a forest, taken apart by where its trees split."""

    variance: dict[int, float]  # by the steps taken before a split, -1 between a prompt's trees
    sibling_std: float  # of the values of siblings, within their families; 0 without siblings
    effective: float  # independent leaves that those of a prompt are worth, a mean over prompts
    by_task: dict[int, Tensor]  # [P] float64, `variance` of each task; NaN where it has no split


def nested(tree: Tree, score: Tensor) -> Nested:
    """Of leaf scores `[L]`, float64.

    At a split, E[s²] = σ² + E[v], for the sample variance s² of the k children's means, the
    variance σ² that the step decides, and the variance v of a child's mean round its own value,
    which is estimated by s²/k of the splits below. A prompt's leaves are worth Σσ² / v(prompt).
    """
    value = torch.zeros(len(tree), dtype=torch.float64)
    value[tree.leaves] = score.double()
    error = torch.zeros_like(value)  # v
    decided: dict[int, float] = {}
    by_task: dict[int, Tensor] = {}
    spreads = [torch.zeros(0, dtype=torch.float64)]
    for number in range(tree.depth, -1, -1):
        level = torch.arange(tree.level(number).start, tree.level(number).stop)
        # the trees of a prompt are a family, too
        above = tree.parent[level] if number else tree.task[level]
        families, family, count = torch.unique(above, return_inverse=True, return_counts=True)
        zeros = torch.zeros(len(families), dtype=torch.float64)
        mean = zeros.index_add(0, family, value[level]) / count
        within = zeros.index_add(0, family, error[level]) / count
        square = zeros.index_add(0, family, (value[level] - mean[family]).square())
        spread = square / (count - 1).clamp(min=1)
        split = count > 1
        if bool(split.any()):
            step = int(tree.step[level[0]]) - 1
            parts = (spread - within)[split]
            decided[step] = float(parts.mean())
            owner = tree.task[families] if number else families
            by_task[step] = _means(parts, owner[split], int(tree.task.max()) + 1)
            if number:
                spreads.append(spread[split])
        upward = torch.where(split, spread / count, within)
        if number:
            value[families] = mean
            error[families] = upward
    return Nested(
        variance=dict(sorted(decided.items())),
        sibling_std=float(torch.cat(spreads).mean().nan_to_num()) ** 0.5,
        effective=_effective(tree, sum(decided.values()), upward),
        by_task=dict(sorted(by_task.items())),
    )


def _effective(tree: Tree, total: float, error: Tensor) -> float:
    """Σσ² over the variance of a prompt's mean; all leaves where nothing varies."""
    leaves = len(tree.leaves) / len(error)
    mean = float(error.mean())
    if total <= 0 or mean <= 0:
        return leaves
    return min(leaves, total / mean)


def _means(parts: Tensor, owner: Tensor, count: int) -> Tensor:
    """The mean of each owner's parts `[count]`, NaN of one that has none."""
    total = torch.zeros(count, dtype=torch.float64).index_add(0, owner, parts)
    return total / torch.bincount(owner, minlength=count)
