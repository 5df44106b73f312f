"""The trees on which the closed form of the gradient is held against the engine."""

import functools

from gradient_moments import Moments, law, moments
from gradient_samples import Readings, World, readings
from oracle import schedule

from treerl.engine.baseline import (
    Baseline,
    Depth,
    LeaveSubtreeOut,
    ParentGain,
    Prompt,
    Siblings,
    StepGain,
)
from treerl.engine.branching import window
from treerl.engine.coupling import (
    Correlated,
    Coupling,
    Independent,
    Mirrored,
    Orthogonal,
    Rotated,
)
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weighting import (
    SoftmaxMeanLogProb,
    SoftmaxSumLogProb,
    Weighting,
)

TREES = 2500
Z = 4.5  # of some 700 numbers: one suite in 200 would exceed it by chance, were seeds not fixed
BINARY = World(schedule(5, 3), window(5, 0, 3, 2))
TERNARY = World(schedule(5, 3), window(5, 1, 2, 3))
SMALL = World(schedule(4, 3), TreeSpec((2, 2, 1), (True, True, False), (1, 1, 2)))
BASELINES = (Prompt(), Depth(), Siblings(), ParentGain(), StepGain(), LeaveSubtreeOut())
COUPLINGS = (Independent(), Mirrored(), Rotated(), Orthogonal(), Correlated(1.0))
DENSITIES = (SoftmaxMeanLogProb(), SoftmaxSumLogProb())


@functools.cache
def one(world: World) -> Tree:
    """A single task's trees, whose shape the closed form reads."""
    return world.grow(1, Independent())


def predicted(world: World, baseline: Baseline, coupling: Coupling, step: int) -> Moments:
    """The closed form of a step under uniform weights."""
    noise = law(one(world), coupling, world.shared_noise)
    return moments(one(world), world.steps, baseline, noise, step)


def deviation(found: Readings, exact: tuple[float, float, float]) -> float:
    """The largest |z| of the mean and of both variances."""
    z = (found.factor.z(exact[0]), found.along.z(exact[1]), found.across.z(exact[2]))
    return max(map(abs, z))


def worst(
    world: World, weighting: Weighting, baseline: Baseline, coupling: Coupling, tree: Tree
) -> float:
    """The largest |z| over steps."""
    found = readings(world, tree, weighting, baseline)
    furthest = 0.0
    for step, reading in found.items():
        exact = predicted(world, baseline, coupling, step)
        furthest = max(furthest, deviation(reading, (exact.factor, exact.along, exact.across)))
    return furthest
