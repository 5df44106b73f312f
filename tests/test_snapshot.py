"""What a trainer has come to: taken, put back, and whether it is that of a whole iteration."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch
from oracle import Linear, schedule
from plain import SUM
from small_runs import TASKS, algorithm
from torch import Tensor

from treerl.engine.kernel import FlowSDE
from treerl.engine.objective import Clipped, EdgeObjective, Edges, Loss
from treerl.engine.policy import Policy
from treerl.engine.step import Step
from treerl.engine.trainer import Trainer


@dataclass(frozen=True)
class Counting(EdgeObjective):
    """The clipped surrogate, stronger with every iteration that it has seen."""

    memory: dict[str, Tensor] = field(init=False, compare=False, default_factory=dict)

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        loss = Clipped(0.2)(policy, edges)
        return replace(loss, value=loss.value * float(1 + self.memory.get("seen", torch.zeros(()))))

    def observe(self, step: Step) -> None:
        self.memory["seen"] = torch.tensor(step.iteration + 1.0)

    def state(self) -> dict[str, Tensor]:
        return dict(self.memory)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.memory.clear()
        self.memory.update(state)


def trainer() -> Trainer:
    theta = torch.linspace(-0.3, 0.4, 6, dtype=torch.float64).requires_grad_()
    env = Linear(FlowSDE(0.7), schedule(6, 3), theta)
    optimizer = torch.optim.AdamW([theta], lr=0.01)
    return Trainer(env, SUM, algorithm(objective=Counting()), optimizer, 4, max_grad_norm=1e9)


def kept(train: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in train.state().items()}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_trainer_that_is_restored_goes_on_as_the_one_that_was_saved() -> None:
    first = trainer()
    for _ in range(3):
        first.iterate(TASKS)
    saved = kept(first)
    expected = [first.iterate(TASKS).metrics for _ in range(2)]
    second = trainer()
    second.restore(saved)
    assert second.iteration == 3 and equal(kept(second), saved)
    assert [second.iterate(TASKS).metrics for _ in range(2)] == expected
    assert equal(kept(second), kept(first)) and "memory/objective/seen" in saved


def test_what_was_restored_is_left_as_it_is_by_the_training_that_follows() -> None:
    first = trainer()
    first.iterate(TASKS)
    saved = kept(first)
    before = {name: tensor.clone() for name, tensor in saved.items()}
    again = trainer()
    again.restore(saved)
    again.iterate(TASKS)
    assert equal(saved, before) and not equal(kept(again), before)


@pytest.mark.parametrize(("step", "halfway"), [(1, False), (2, True)])
def test_an_iteration_that_is_left_after_its_first_optimizer_step_is_half_done(
    step: int, halfway: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its weights are then is nobody's iteration, and must not be saved as one."""
    train = trainer()
    first = kept(train)
    backward = Trainer._add_gradient
    steps: list[int] = []
    monkeypatch.setattr(train.optimizer, "step", lambda: steps.append(1))

    def failing(self: Trainer, *batch: object) -> Loss:
        if len(steps) == step - 1:
            raise KeyboardInterrupt
        return backward(self, *batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_add_gradient", failing)
    with pytest.raises(KeyboardInterrupt):
        train.iterate(TASKS)
    assert train.halfway == halfway and train.iteration == 0
    train.restore(first)
    assert not train.halfway
