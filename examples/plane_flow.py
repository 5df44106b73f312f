"""A flow on the plane, no diffusers and no images, trained by trees to end near one point."""

from dataclasses import replace

import torch
from torch import nn

import treerl

torch.manual_seed(0)
SCHEDULE = treerl.Flow.linear(8)
NET = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 2))


class Plane(treerl.Env):
    """x' ~ N(a x + b v, s²) with the velocity v of a small network."""

    steps, shape = SCHEDULE.steps, (2,)
    sde = treerl.FlowSDE(0.7).coefficients(SCHEDULE)
    ode = treerl.ODE().coefficients(SCHEDULE)

    def policy(self, state: treerl.State, stochastic: bool) -> treerl.Gaussian:
        time = SCHEDULE.time[state.step].float()[:, None]
        velocity = NET(torch.cat([state.x, time], dim=1))
        coefficients = self.sde if stochastic else self.ode
        return coefficients.gaussian(state.x, velocity, state.step)


def near(samples: treerl.Samples) -> torch.Tensor:
    """Minus the distance `[N]` to the point (1, 1)."""
    return -(samples.images - 1).square().sum(dim=1).sqrt()


algorithm = replace(treerl.recipes["treegrpo"], objective=treerl.Clipped(clip_range=0.1))
optimizer = torch.optim.AdamW(NET.parameters(), lr=3e-3)
trainer = treerl.Trainer(Plane(), treerl.Rewards({"near": near}), algorithm, optimizer)
for _ in range(150):
    step = trainer.iterate([None] * 8)
    if step.iteration % 30 == 0:
        print(f"{step.iteration:3d}  reward {step.metrics['reward']:.3f}")
