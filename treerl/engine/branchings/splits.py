"""Splits at fixed steps of a path that is sampled throughout."""

from dataclasses import dataclass
from fractions import Fraction as Exact
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from treerl.engine.branching import Branching, BranchingFactor, Distribution
from treerl.engine.tree_spec import TreeSpec


@dataclass(frozen=True)
class Splits(Branching):
    """BranchGRPO's fixed splits (arXiv 2509.06040): every so often, from the first step on.

    They stand at the steps ⌊i · spacing · T⌋, one step apart at least: four of 20 steps with the
    published spacing of 3 at (0, 3, 6, 9), of 10 steps at (0, 1, 3, 4).
    """

    branching_factor: BranchingFactor = 2  # K, children at a split
    count: Annotated[int, Ge(1), Le(999)] = 4
    spacing: Annotated[float, Gt(0), Lt(1)] = 0.15  # of all T steps
    between: bool = True  # whether the steps that do not split are sampled too

    def distribution(self, steps: int, iteration: int) -> Distribution:
        gap = max(Exact(1), Exact(str(self.spacing)) * steps)
        places = [int(number * gap) for number in range(self.count)]
        if places[-1] >= steps - 1:
            raise ValueError(
                f"expected the last split before the last of {steps} steps, got step {places[-1]}; "
                "lower count or spacing"
            )
        splits = tuple(step in places for step in range(steps))
        children = tuple(self.branching_factor if split else 1 for split in splits)
        sampled = tuple(step < steps - 1 for step in range(steps)) if self.between else splits
        return ((1.0, TreeSpec(children, sampled)),)
