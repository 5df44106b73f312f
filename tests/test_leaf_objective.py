"""Losses on leaves that are noised again (NFT, AWM): draws, formulas and what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from oracle import Linear, schedule
from plain import SUM, Always, Counted
from torch import Tensor

from treerl.engine import noise
from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import Prompt
from treerl.engine.branching import window
from treerl.engine.env import Env
from treerl.engine.kernel import FlowSDE
from treerl.engine.objective import LeafObjective, Leaves, Loss
from treerl.engine.policy import Gaussian
from treerl.engine.step import Step
from treerl.engine.trainer import Trainer
from treerl.engine.tree import State
from treerl.errors import InputError

TASKS = ("a cat", "a dog", "a fox")


@dataclass(frozen=True)
class AdvantageWeighted(LeafObjective):
    """AWM (arXiv 2509.25050): the flow-matching loss of each leaf times its advantage.

    |v - (ε - x₀)|² of the velocity is |x̂₀ - x₀|² / σ² of the expected sample.
    """

    met: list[Leaves] = field(init=False, compare=False, default_factory=list)

    def __call__(self, denoised: Tensor, leaves: Leaves) -> Loss:
        self.met.append(leaves)
        error = (denoised - leaves.x0).square().flatten(1).mean(1) / leaves.sigma**2
        ones = torch.ones_like(leaves.advantage)
        return Loss(leaves.advantage * error, ones, torch.zeros_like(ones, dtype=torch.bool))


@dataclass(frozen=True)
class Contrast(LeafObjective):
    """NFT's shape (arXiv 2509.16117): towards good leaves, and away from the reference's by bad."""

    gaps: list[Tensor] = field(init=False, compare=False, default_factory=list)

    @property
    def weight_set(self) -> str | None:
        return "start"

    def __call__(self, denoised: Tensor, leaves: Leaves) -> Loss:
        assert leaves.reference is not None
        self.gaps.append((denoised - leaves.reference).detach() / leaves.sigma[:, None])
        mirrored = 2 * leaves.reference - denoised
        good = (leaves.advantage.sign() + 1) / 2
        towards = (denoised - leaves.x0).square().mean(1)
        away = (mirrored - leaves.x0).square().mean(1)
        loss = good * towards + (1 - good) * away
        return Loss(loss, torch.ones_like(loss), torch.zeros_like(loss, dtype=torch.bool))


def trainer(
    objective: LeafObjective, rows: int = 8, optimizer_steps: int = 1, lr: float = 1.0
) -> tuple[Trainer, Linear]:
    theta = torch.linspace(-0.3, 0.4, 6, dtype=torch.float64).requires_grad_()
    env = Linear(FlowSDE(0.7), schedule(6, 3), theta, shape=(2,))
    algorithm = Algorithm(
        branching=Always(window(6, 1, 3, 3)),
        baseline=Prompt(),
        objective=objective,
        optimizer_steps=optimizer_steps,
    )
    return Trainer(env, SUM, algorithm, Counted([theta], lr), rows, max_grad_norm=1e9), env


def joined(objective: AdvantageWeighted, name: str) -> Tensor:
    return torch.cat([getattr(leaves, name) for leaves in objective.met])


def test_every_leaf_is_noised_once_to_a_step_of_the_schedule_with_its_own_noise() -> None:
    objective = AdvantageWeighted()
    train, env = trainer(objective)
    step = train.iterate(TASKS)
    x0, x, eps, steps, sigma = (
        joined(objective, name) for name in ("x0", "x", "eps", "step", "sigma")
    )
    leaves = step.tree.at(step.tree.leaves)
    assert torch.equal(x0.sort(0).values, leaves.x.sort(0).values)
    assert torch.equal(sigma, env.schedule.sigma[steps])
    assert torch.allclose(x, (1 - sigma)[:, None] * x0 + sigma[:, None] * eps, rtol=0, atol=1e-15)
    assert set(steps.tolist()) == set(range(6))
    assert len(torch.unique(eps, dim=0)) == 81 and abs(float(eps.std()) - 1) < 0.2
    rows = [int((leaves.x == latent).all(1).nonzero()) for latent in x0]
    nodes = step.tree.leaves[rows]
    assert torch.equal(joined(objective, "advantage"), step.advantages.advantage[nodes])
    assert torch.equal(joined(objective, "task"), step.tree.task[nodes])


def test_the_gradient_of_a_weighted_regression_is_its_formula_written_out() -> None:
    # x̂₀ = x - σ v and v moves by θ, so that d |x̂₀ - x₀|² / σ² / dθ = -2 mean(x̂₀ - x₀) / σ
    objective = AdvantageWeighted()
    train, env = trainer(objective)
    before = env.theta.detach().clone()
    train.iterate(TASKS)
    ascent = env.theta.detach() - before
    expected = torch.zeros(6, dtype=torch.float64)
    with torch.no_grad():
        env.theta.copy_(before)
        for leaves in objective.met:
            state = State(leaves.x, leaves.step, leaves.task)
            policy = env.policy(state, stochastic=False)
            assert policy.denoised is not None
            slope = -2 * (policy.denoised - leaves.x0).mean(1) / leaves.sigma
            expected.index_add_(0, leaves.step, -leaves.advantage * slope / 81)
    assert torch.allclose(ascent, expected, rtol=1e-11, atol=1e-13)
    assert float(ascent.abs().min()) > 1e-4


def test_the_noise_of_a_leaf_is_not_that_of_the_step_that_led_to_it() -> None:
    objective = AdvantageWeighted()
    train, _ = trainer(objective)
    tree = train.iterate(TASKS).tree
    keys = tree.key[tree.leaves].numpy().view(np.uint64)
    rollout = noise.normal(keys, (2,), torch.float64)
    assert not torch.isin(joined(objective, "eps"), rollout).any()


@pytest.mark.parametrize("rows", [1, 5, 81, 200])
def test_a_loss_on_leaves_does_not_depend_on_the_cut_into_micro_batches(rows: int) -> None:
    train, env = trainer(AdvantageWeighted())
    step = train.iterate(TASKS)
    other, other_env = trainer(AdvantageWeighted(), rows)
    other_step = other.iterate(TASKS)
    assert torch.allclose(other_env.theta, env.theta, rtol=1e-11, atol=1e-13)
    assert other_step.metrics["loss"] == pytest.approx(step.metrics["loss"], rel=1e-11)
    assert other_step.metrics["update_forwards"] == 81 == other_step.metrics["edges"]


def test_the_step_to_which_a_leaf_is_noised_says_nothing_about_its_noise() -> None:
    objective = AdvantageWeighted()
    train, _ = trainer(objective, lr=0.0)
    for _ in range(20):
        train.iterate(TASKS)
    columns = [joined(objective, "step").double()[:, None], joined(objective, "eps").abs()]
    table = torch.corrcoef(torch.cat(columns, 1).T)
    assert float(table[0, 1:].abs().max()) < 4 / (20 * 81) ** 0.5


def test_optimizer_steps_share_the_leaves_among_them() -> None:
    objective = AdvantageWeighted()
    train, _ = trainer(objective, optimizer_steps=4)
    step = train.iterate(TASKS)
    assert isinstance(train.optimizer, Counted) and train.optimizer.steps == 4
    assert len(joined(objective, "x0")) == 81 == step.metrics["leaves"]
    assert torch.equal(step.trained.nonzero().flatten(), step.tree.leaves)


def test_a_loss_on_leaves_gets_the_references_sample_when_it_asks_for_it() -> None:
    objective = Contrast()
    train, env = trainer(objective, lr=0.0)

    @contextmanager
    def as_it_started() -> Iterator[None]:
        env.theta.add_(0.25)
        yield
        env.theta.sub_(0.25)

    train.weight_sets = {"start": as_it_started}
    train.iterate(TASKS)
    gap = torch.cat(objective.gaps)  # x̂₀ moves by -σ θ
    assert torch.allclose(gap, torch.full_like(gap, 0.25), rtol=0, atol=1e-9)
    train.weight_sets = {}
    with pytest.raises(InputError, match="objective: Contrast asks for the weights 'start'"):
        train.iterate(TASKS)


def test_training_on_leaves_climbs() -> None:
    train, _ = trainer(AdvantageWeighted(), lr=0.1)
    rewards = [train.iterate(TASKS).metrics["reward"] for _ in range(30)]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2


def test_an_environment_without_a_forward_process_or_an_expected_sample_is_refused() -> None:
    class OneWay(Linear):
        def noised(self, x0: Tensor, eps: Tensor, step: Tensor) -> Tensor:
            return Env.noised(self, x0, eps, step)

    class Silent(Linear):
        def policy(self, state: State, stochastic: bool) -> Gaussian:
            return replace(super().policy(state, stochastic), x0=None)

    def iterate(kind: type[Linear]) -> Step:
        theta = torch.zeros(6, dtype=torch.float64).requires_grad_()
        train, _ = trainer(AdvantageWeighted())
        train.env = kind(FlowSDE(0.7), schedule(6, 3), theta, shape=(2,))
        return train.iterate(TASKS)

    with pytest.raises(InputError, match="objective: OneWay has no forward process"):
        iterate(OneWay)
    with pytest.raises(InputError, match="needs x̂₀, and Silent's policy says nothing"):
        iterate(Silent)
