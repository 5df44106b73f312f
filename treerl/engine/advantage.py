"""Leaf scores to edge advantages: standardise in the prompt, back up by a weighting, compare with a baseline."""

from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.baseline import Baseline
from treerl.engine.tree import Tree
from treerl.engine.weighting import Weighting, back_up
from treerl.errors import NumericsError


@dataclass(frozen=True)
class Standardised:
    """Leaf scores in units of their prompt's spread."""

    leaf: Tensor  # [L] float64, mean 0 and population std 1 in each prompt; exactly 0 where the prompt has no spread
    spread: (
        Tensor  # [P] float64, population std of each prompt's leaves; exactly 0 where it has none
    )


@dataclass(frozen=True)
class Advantages:
    """What training and the drawing of a tree read; plain tensors beside the tree."""

    advantage: Tensor  # [N] float64, of the edge into each node
    value: Tensor  # [N] float64, backed-up standardised score
    flat: int  # prompts whose leaves all score the same: they teach nothing


def standardise(tree: Tree, score: Tensor, tolerance: float = 1e-6) -> Standardised:
    """(score - mean) / std over the leaves `[L]` of each prompt, all its trees together (arXiv 2512.08153 Eq. 9).

    A prompt whose scores differ by no more than tolerance * (1 + |mean|) has no spread: its leaves get exactly 0,
    where the usual (r - mean) / (std + ε) blows rounding errors up to ±1.
    """
    prompt = tree.prompt[tree.leaves]
    score = score.double()
    count = int(prompt.max()) + 1
    zeros = torch.zeros(count, dtype=torch.float64)
    size = torch.bincount(prompt, minlength=count).clamp(min=1)
    mean = zeros.index_add(0, prompt, score) / size
    centred = score - mean[prompt]
    spread = zeros.index_add(0, prompt, centred.square()).div(size).sqrt()
    high = zeros.scatter_reduce(0, prompt, score, "amax", include_self=False)
    low = zeros.scatter_reduce(0, prompt, score, "amin", include_self=False)
    flat = high - low <= tolerance * (1 + mean.abs())
    spread = spread.masked_fill(flat, 0.0)
    leaf = torch.where(flat[prompt], 0.0, centred / spread.masked_fill(flat, 1.0)[prompt])
    return Standardised(leaf, spread)


def combine(
    tree: Tree, score: Tensor, weight: Tensor, apart: bool, tolerance: float
) -> Standardised:
    """K rewards `[L, K]` as one: each standardised in its prompt, then the weighted sum (TreeGRPO's experiments).

    When not `apart` the weighted sum of the raw scores is standardised instead.
    """
    if not bool(torch.isfinite(score).all()):
        raise NumericsError("advantages: a score is not finite")
    if not apart:
        return standardise(tree, score.double() @ weight.double(), tolerance)
    each = [standardise(tree, column, tolerance) for column in score.unbind(1)]
    leaf = torch.stack([one.leaf for one in each], 1) @ weight.double()
    spread = torch.stack([one.spread for one in each], 1).amax(1)
    return Standardised(leaf, spread)


def advantages(
    tree: Tree,
    leaf: Standardised,
    weighting: Weighting,
    baseline: Baseline,
    normalise: bool = True,
    clip: float = 5.0,
) -> Advantages:
    """The advantage of every edge, clipped to ±`clip`; in the reward's own unit when not normalised."""
    values = back_up(tree, leaf.leaf, weighting)
    reference = baseline(tree, values)
    gap = values.value - reference.centre
    if normalise:
        gap = torch.where(reference.scale > 0, gap / reference.scale.clamp(min=1e-30), 0.0)
    else:
        gap = gap * leaf.spread[tree.prompt]
    advantage = torch.where(leaf.spread[tree.prompt] > 0, gap, 0.0).clamp(-clip, clip)
    if not bool(torch.isfinite(advantage).all()):
        raise NumericsError("advantages: not finite")
    return Advantages(advantage, values.value, int((leaf.spread == 0).sum()))
