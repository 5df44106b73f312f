"""The tree gradient of the linear world as the engine estimates it, tree by tree."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from forests import centred
from oracle import Linear, Steps, closed_form
from plain import edges, leaf_totals, replay
from torch import Tensor

from treerl.engine import noise
from treerl.engine.advantage import advantages
from treerl.engine.baseline import Baseline
from treerl.engine.coupling import Coupling
from treerl.engine.grow import grow
from treerl.engine.kernel import FlowSDE
from treerl.engine.objective import Clipped
from treerl.engine.policy import Gaussian
from treerl.engine.roots import Roots
from treerl.engine.schedule import Flow
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weighting import Weighting

KERNEL = FlowSDE(0.7)


@dataclass(frozen=True)
class World:
    """A tree, how many of them a task has, and the flow that they are grown on."""

    schedule: Flow
    spec: TreeSpec
    trees: int = 1  # for each task
    dims: int = 4
    shared_noise: bool = False  # whether a task's trees start from one noise

    @property
    def env(self) -> Linear:
        """The flow; its reward is the sum of a sample's numbers."""
        theta = torch.zeros(self.spec.steps, dtype=torch.float64)
        return Linear(KERNEL, self.schedule, theta, shape=(self.dims,))

    @property
    def steps(self) -> Steps:
        """The moves in closed form; one that takes several steps is an Euler step."""
        sigma = self.schedule.sigma[list(self.spec.at)].tolist()
        return closed_form(KERNEL, sigma, self.env.mean, self.env.spread, self.spec.stochastic)

    @property
    def sampled(self) -> list[int]:
        """The steps that have a gradient; each is one move, so it is the level's number too."""
        return [step for step, here in enumerate(self.spec.stochastic) if here]

    @property
    def cost(self) -> int:
        """Forwards of a task: those of the rollout, and three for each that an update makes."""
        return self.trees * (self.spec.forwards + 3 * self.spec.decisions)

    def grow(self, tasks: int, coupling: Coupling, seed: int = 0) -> Tree:
        """The trees of so many tasks."""
        first = noise.children(noise.key(seed), tasks)
        key = noise.children(first, self.trees)
        start = np.repeat(first, self.trees) if self.shared_noise else key
        task = torch.arange(tasks).repeat_interleave(self.trees)
        roots = Roots(task, key, noise.mix(start, 2**32))
        return grow(self.env, roots, self.spec, len(roots), coupling=coupling)


@dataclass(frozen=True)
class Reading:
    """A mean of independent readings, and its standard error."""

    value: float
    error: float

    def z(self, exact: float) -> float:
        """How far off a number it is; one that is exact up to rounding is 0 off."""
        gap = self.value - exact
        return gap / max(self.error, 1e-6)


def read(samples: Tensor) -> Reading:
    """The mean of `[P]` samples."""
    return Reading(float(samples.mean()), float(samples.std()) / math.sqrt(len(samples)))


@dataclass(frozen=True)
class Readings:
    """What `gradient_moments.Moments` predicts."""

    factor: Reading
    along: Reading
    across: Reading


def readings(
    world: World, tree: Tree, weighting: Weighting, baseline: Baseline
) -> dict[int, Readings]:
    """The moments of the gradient by step, in units of the exact one, over all tasks."""
    scores = centred(tree, leaf_totals(tree))
    credit = advantages(tree, scores, weighting, baseline, normalise=False, clip=math.inf)
    gradient = ascent(world, tree, credit.advantage)
    exact = world.steps.gradient()
    found = {}
    for step in world.sampled:
        relative = gradient[:, step] / exact[step]
        along = relative.mean(1)
        outside = (relative - along[:, None]).square().sum(1)
        across = outside / (world.dims * (world.dims - 1))
        spread = (along - along.mean()).square()
        found[step] = Readings(read(along), read(spread), read(across))
    return found


def ascent(world: World, tree: Tree, advantage: Tensor) -> Tensor:
    """Minus the clipped surrogate's gradient in the shift of each task's velocity `[P, T, D]`."""
    nodes = tree.edges
    policy = replay(world.env, tree, nodes)
    mean = policy.mean.detach().requires_grad_()
    loss = Clipped(0.2)(Gaussian(mean, policy.std), edges(tree, nodes, advantage)).value
    slope = -torch.autograd.grad(loss.sum(), mean)[0]
    step = tree.step[nodes] - 1
    count = torch.bincount(step, minlength=world.spec.steps)
    tasks = int(tree.task.max()) + 1
    # log-densities are means over dimensions, and the mean of the next latent is linear in the
    # velocity; the gradient of a step is the mean over its edges
    unit = world.dims * world.env.noisy.prediction[step] * tasks / count[step]
    total = torch.zeros(tasks * world.spec.steps, world.dims, dtype=torch.float64)
    total.index_add_(0, tree.task[nodes] * world.spec.steps + step, slope * unit[:, None])
    return total.view(tasks, world.spec.steps, world.dims)
