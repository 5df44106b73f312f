"""Scores to edge advantages: normalise, back up by a weighting, compare with a baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from treerl.engine.baseline import Baseline
from treerl.engine.normaliser import Scores
from treerl.engine.tree import Tree
from treerl.engine.weighting import Weighting, back_up
from treerl.errors import NumericsError


@dataclass(frozen=True)
class Advantages:
    """What training and the drawing of a tree read; plain tensors beside the tree."""

    advantage: Tensor  # [N] float64, of the edge into each node
    values: Tensor  # [N] float64, backed-up scores
    zero_std: int  # tasks whose leaves all score the same: they teach nothing


def advantages(
    tree: Tree,
    scores: Scores,
    weighting: Weighting,
    baseline: Baseline,
    tasks: Sequence[Any] = (),
    iteration: int = 0,
    normalise: bool = True,
    clip: float = 5.0,
) -> Advantages:
    """The advantage of every edge, clipped to ±`clip`.

    `normalise` divides by the scale that the baseline gives; without it the gap stays as it is.
    """
    backup = back_up(tree, scores.values, weighting, iteration)
    reference = baseline(tree, backup, tasks)
    gap = backup.values - reference.centre
    if normalise:
        gap = torch.where(reference.scale > 0, gap / reference.scale.clamp(min=1e-30), 0.0)
    taught = scores.spread[tree.task] > 0
    advantage = torch.where(taught, gap, 0.0).clamp(-clip, clip)
    if not bool(torch.isfinite(advantage).all()):
        raise NumericsError(f"advantages: baseline {type(baseline).__name__} is not finite")
    spread = scores.spread[torch.unique(tree.task)]  # a task whose trees were all dropped has none
    return Advantages(advantage, backup.values, int((spread == 0).sum()))
