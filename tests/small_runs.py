"""A small training run on the linear world, and an objective that keeps what it met."""

from dataclasses import dataclass, field

import torch
from oracle import Linear, schedule
from plain import SUM, Always, Counted
from torch import Tensor

from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import LeaveSubtreeOut
from treerl.engine.kernel import FlowSDE
from treerl.engine.objective import Clipped, EdgeObjective, Edges, Loss
from treerl.engine.policy import Policy
from treerl.engine.selection import All, Selection
from treerl.engine.trainer import Trainer
from treerl.engine.tree_spec import TreeSpec

SPEC = TreeSpec((1, 3, 1, 2, 1, 1), (False, True, True, True, False, False))


TASKS = ("a cat", "a dog", "a fox")


@dataclass(frozen=True)
class Watched(EdgeObjective):
    """The clipped surrogate, and the edges that it met."""

    clip_range: float = 0.2
    met: list[Edges] = field(init=False, compare=False, default_factory=list)
    ratios: list[Tensor] = field(init=False, compare=False, default_factory=list)

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        loss = Clipped(self.clip_range)(policy, edges)
        self.met.append(edges)
        self.ratios.append(loss.ratio)
        return loss


def algorithm(
    selection: Selection | None = None, objective: EdgeObjective | None = None, epochs: int = 1
) -> Algorithm:
    return Algorithm(
        branching=Always(SPEC),
        baseline=LeaveSubtreeOut(),
        selection=selection or All(),
        objective=objective or Watched(),
        optimizer_steps=2,
        ppo_epochs=epochs,
    )


def trainer(chosen: Algorithm, per_task: bool = False, lr: float = 0.5) -> tuple[Trainer, Linear]:
    theta = torch.linspace(-0.3, 0.4, 6, dtype=torch.float64)
    theta = (theta.repeat(3, 1) if per_task else theta).requires_grad_()
    env = Linear(FlowSDE(0.7), schedule(6, 3), theta)
    return Trainer(env, SUM, chosen, Counted([theta], lr), 4, max_grad_norm=1e9), env


def seen(objective: object) -> Tensor:
    """The stored children that an objective met, sorted."""
    assert isinstance(objective, Watched)
    return torch.cat([edges.x for edges in objective.met]).flatten().sort().values
