"""A small world to try the parts of an algorithm on: a flow in four dimensions and two tasks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine import noise
from treerl.engine.branching import window
from treerl.engine.env import Env
from treerl.engine.grow import grow
from treerl.engine.kernel import ODE, Coefficients, FlowSDE
from treerl.engine.policy import Gaussian
from treerl.engine.roots import make_roots
from treerl.engine.schedule import Flow
from treerl.engine.tree import State, Tree
from treerl.engine.tree_spec import TreeSpec

STEPS = 6
DIMENSIONS = 4
TASKS = ("a", "b")
BINARY = window(STEPS, 1, 2, 2)
# two steps with 3 and 1 children, then 2: families of different sizes in one forest
RAGGED = TreeSpec((1, 3, 1, 2, 1, 1), (False, True, False, True, False, False))


class World(Env):
    """A flow whose velocity is a linear function of x, with weights that can be trained."""

    steps = STEPS
    shape = (DIMENSIONS,)

    def __init__(self, coefficients: Coefficients | None = None) -> None:
        self.schedule = Flow.linear(STEPS)
        self.coefficients = coefficients or FlowSDE().coefficients(self.schedule)
        self.ode = ODE().coefficients(self.schedule)
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(DIMENSIONS, DIMENSIONS, generator=generator)
        self.weight = (0.3 * weight).requires_grad_()

    @property
    def step_coefficients(self) -> Coefficients:
        return self.coefficients

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        velocity = state.x @ self.weight
        coefficients = self.coefficients if stochastic else self.ode
        gaussian = coefficients.gaussian(state.x, velocity, state.step)
        x0 = self.schedule.denoised(state.x, velocity, state.step)
        return Gaussian(gaussian.mean, gaussian.std, x0)

    def noised(self, x0: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return self.schedule.noised(x0, eps, step)


@dataclass(frozen=True)
class Forest:
    """A grown forest with scores of two rewards."""

    env: World
    tree: Tree
    scores: Tensor  # [N, 2] float64, NaN at inner nodes
    weights: Tensor  # [2]


def forest(spec: TreeSpec = BINARY, trees: int = 2, flat: bool = False) -> Forest:
    """Two tasks with `trees` trees each; with `flat` the first task's leaves all score the same."""
    env = World().with_tasks(TASKS)
    keys = [noise.key(0, row) for row in range(len(TASKS))]
    tree = grow(env, make_roots(keys, trees), spec, rows=5)
    x = tree.at(tree.leaves).x.double()
    scores = torch.full((len(tree), 2), torch.nan, dtype=torch.float64)
    scores[tree.leaves] = torch.stack([x.sum(1), -x.square().sum(1)], dim=1)
    if flat:
        scores[tree.leaves[tree.task[tree.leaves] == 0]] = 0.5
    return Forest(env, tree, scores, torch.tensor([1.0, 0.25], dtype=torch.float64))
