"""The linear-quadratic regulator, no diffusion at all, trained by trees to Riccati's solution."""

from dataclasses import replace

import torch

import treerl
from treerl.engine.branching import Fixed

STEPS, DRIFT, EFFORT, STD = 5, 1.2, 0.5, 0.3
GAINS = torch.zeros(STEPS, requires_grad=True)  # the force of a step is -gain · place


class Regulator(treerl.Env):
    steps, shape = STEPS, (2,)  # x = (place, bill): to be off 0 costs, and so does force

    def initial(self, task: torch.Tensor, noise: torch.Tensor) -> treerl.State:
        return treerl.State(noise * torch.tensor([1.0, 0.0]), torch.zeros_like(task), task)

    def policy(self, state: treerl.State, stochastic: bool) -> treerl.Gaussian:
        place, bill = state.x.unbind(dim=1)
        force = -GAINS[state.step] * place
        dues = place**2 + EFFORT * force**2
        mean = torch.stack([DRIFT * place + force, bill + dues], dim=1)
        return treerl.Gaussian(mean, torch.full_like(place, STD))


thrift = treerl.Rewards({"thrift": lambda samples: -samples.images[:, 1]})
trees = Fixed(branching_factor=3, depth="all")  # but the last step, whose force is of no use
parts = {"branching": trees, "objective": treerl.Clipped(0.2), "decay": "linear"}
algorithm = replace(treerl.recipes["treegrpo"], **parts)
adam = torch.optim.Adam([GAINS], lr=0.05)
trainer = treerl.Trainer(Regulator(), thrift, algorithm, adam, 648, iterations=80)
for _ in range(80):
    trainer.iterate([None] * 8)
best, bill = [], 0.0  # step by step from the end: the best gain, and its bill for place 1
for _ in range(STEPS):
    best.insert(0, DRIFT * bill / (EFFORT + bill))
    bill = 1 + DRIFT * EFFORT * best[0]
print(f"trained {GAINS.data}\nRiccati {torch.tensor(best)}")
