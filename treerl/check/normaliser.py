"""Whether a normaliser makes scores comparable as it says."""

import torch

from treerl.check.finding import check
from treerl.check.world import forest
from treerl.engine.normaliser import Normaliser

Result = tuple[bool, str]


@check("return Scores(values [N], spread [P]), float64; NaN where a node was not scored")
def normalised(normaliser: Normaliser) -> Result:
    """Leaves get finite values, and exactly 0 where a task's leaves all score the same."""
    grown = forest(flat=True)
    scores = normaliser(grown.tree, grown.scores, grown.weights)
    leaves = scores.values[grown.tree.leaves]
    task = grown.tree.task[grown.tree.leaves]
    flat = bool((leaves[task == 0] == 0).all()) and float(scores.spread[0]) == 0
    shape = tuple(scores.values.shape) == (len(grown.tree),)
    span = f"values {float(leaves.min()):.3g} to {float(leaves.max()):.3g}"
    return shape and flat and bool(torch.isfinite(leaves).all()), span


@check("look at one task at a time, or say in the docstring that tasks are compared")
def monotone(normaliser: Normaliser) -> Result:
    """A higher total means a higher value within a task."""
    grown = forest()
    scores = normaliser(grown.tree, grown.scores[:, :1], grown.weights[:1])
    leaves = grown.tree.leaves[grown.tree.task[grown.tree.leaves] == 1]
    order = grown.scores[leaves, 0].argsort()
    gaps = scores.values[leaves][order].diff()
    return bool((gaps >= 0).all()), f"smallest step {float(gaps.min()):.2g}"


@check("set `free_of_units = True` where every reward has a unit of its own, and only there")
def units(normaliser: Normaliser) -> Result:
    """Whether the unit of one of two rewards matters is as the normaliser says."""
    grown = forest()
    leaves = grown.tree.leaves
    scaled = grown.scores * torch.tensor([1.0, 1000.0], dtype=torch.float64)
    some = normaliser(grown.tree, grown.scores, grown.weights).values[leaves]
    others = normaliser(grown.tree, scaled, grown.weights).values[leaves]
    change = float((others - some).abs().max() / some.abs().max())
    word = "free" if normaliser.free_of_units else "not free"
    return (change < 1e-2) == normaliser.free_of_units, f"{word} of units, change {change:.2g}"
