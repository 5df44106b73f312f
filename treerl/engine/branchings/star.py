"""One trunk to a random step, and all branches from there."""

from dataclasses import dataclass
from fractions import Fraction as Exact
from functools import cache
from typing import Annotated

from annotated_types import Gt, Le

from treerl.engine.branching import Branching, BranchingFactor, Depth, Distribution, width
from treerl.engine.tree_spec import TreeSpec


@dataclass(frozen=True)
class Star(Branching):
    """A trunk that splits once, at a step drawn evenly, and samples `depth` steps from there.

    Flow-GRPO-Fast, TempFlow-GRPO (arXiv 2508.04324), G²RPO (arXiv 2510.01982); one branch is a
    chain that samples at a random place (Flash-GRPO, arXiv 2605.15980).
    """

    branching_factor: BranchingFactor = 24  # branches of the trunk
    depth: Depth = 1  # sampled steps of a branch, the split's included
    part: Annotated[float, Gt(0), Le(1)] = 1.0  # of all steps, from which the split is drawn

    def distribution(self, steps: int, iteration: int) -> Distribution:
        return _stars(steps, width(self.depth, steps), self.branching_factor, self.part)


@cache
def _stars(steps: int, depth: int, branching_factor: int, part: float) -> Distribution:
    first = max(1, int(Exact(str(part)) * steps))  # exact: 0.29 of 100 steps is 29
    starts = range(min(first, steps - depth))
    return tuple(
        (1 / len(starts), _star(steps, start, depth, branching_factor)) for start in starts
    )


def _star(steps: int, start: int, depth: int, branching_factor: int) -> TreeSpec:
    children = tuple(branching_factor if step == start else 1 for step in range(steps))
    return TreeSpec(children, tuple(start <= step < start + depth for step in range(steps)))
