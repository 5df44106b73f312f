"""Two weightings, three seeds each, on a flow on the plane: a table with mean and interval."""

from dataclasses import dataclass, replace

import torch
from torch import nn

import treerl
from treerl.engine.weighting import SoftmaxValue, Uniform

SCHEDULE = treerl.Flow.linear(8)


@dataclass
class Plane(treerl.Env):
    net: nn.Module
    steps, shape = SCHEDULE.steps, (2,)
    sde, ode = (kernel.coefficients(SCHEDULE) for kernel in (treerl.FlowSDE(), treerl.ODE()))

    def policy(self, state: treerl.State, stochastic: bool) -> treerl.Gaussian:
        time = SCHEDULE.time[state.step].float()[:, None]
        velocity = self.net(torch.cat([state.x, time], dim=1))
        return (self.sde if stochastic else self.ode).gaussian(state.x, velocity, state.step)


def trained(algorithm: treerl.Algorithm, seed: int) -> float:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 2))
    rewards = treerl.Rewards({"near": lambda samples: -(samples.images - 1).norm(dim=1)})
    adam = torch.optim.AdamW(net.parameters(), lr=3e-3)
    trainer = treerl.Trainer(Plane(net), rewards, algorithm, adam, seed=seed)
    return [float(trainer.iterate([None] * 8).metrics["reward"]) for _ in range(60)][-1]


paper = replace(treerl.recipes["treegrpo"], objective=treerl.Clipped(clip_range=0.1))
for weighting in (Uniform(), SoftmaxValue(temperature=0.5)):
    algorithm = replace(paper, weighting=weighting)
    ends = torch.tensor([trained(algorithm, seed) for seed in range(3)])
    half = 4.303 * float(ends.std()) / 3**0.5  # Student's t with 2 degrees of freedom, 95 %
    print(f"{weighting!s:30s} reward {float(ends.mean()):.3f} ± {half:.3f}")
