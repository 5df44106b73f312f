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


def test_a_rate_that_does_not_decay_is_left_to_its_own_scheduler() -> None:
    world = Neural(FlowSDE(0.7), schedule(6, 3)).with_tasks([0, 1])
    algorithm = Algorithm(objective=Clipped(0.1), branching=Fixed(2, 2, 0))
    optimizer = torch.optim.SGD(world.network.parameters(), lr=0.1)
    trainer = Trainer(world, SUM, algorithm, optimizer)
    trainer.iterate([0])
    optimizer.param_groups[0]["lr"] = 0.03
    trainer.iterate([0])
    assert optimizer.param_groups[0]["lr"] == 0.03


def test_a_decay_that_there_is_not_is_refused() -> None:
    world = Neural(FlowSDE(0.7), schedule(6, 3)).with_tasks([0, 1])
    algorithm = Algorithm(objective=Clipped(0.1), branching=Fixed(2, 2, 0), decay="cosine")  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(world.network.parameters(), lr=0.1)
    with pytest.raises(InputError, match="decay: expected none or linear, got 'cosine'"):
        Trainer(world, SUM, algorithm, optimizer, iterations=3).iterate([0])
