"""The learning rate of every iteration is a function of its number alone."""

import pytest
import torch
from oracle import Neural, schedule
from plain import SUM

from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import Fixed
from treerl.engine.kernel import FlowSDE
from treerl.engine.objective import Clipped
from treerl.engine.trainer import Trainer
from treerl.errors import InputError


def test_a_learning_rate_decays_linearly_to_its_floor() -> None:
    world = Neural(FlowSDE(0.7), schedule(6, 3)).with_tasks([0, 1])
    algorithm = Algorithm(objective=Clipped(0.1), branching=Fixed(2, 2, 0), decay="linear")
    optimizer = torch.optim.SGD(world.network.parameters(), lr=0.1)
    trainer = Trainer(world, SUM, algorithm, optimizer, iterations=4)
    rates = []
    for _ in range(5):
        trainer.iterate([0])
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.005])
    with pytest.raises(InputError, match="iterations=N"):
        Trainer(world, SUM, algorithm, optimizer).iterate([0])
