"""The figures of an iteration, against the same figures from its own tree and losses."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from oracle import Linear, schedule
from plain import SUM, Counted, PlainRewards, total
from small_runs import SPEC, TASKS, Watched, algorithm, trainer
from torch import Tensor

from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import Prompt
from treerl.engine.branching import Fixed
from treerl.engine.kernel import FlowSDE
from treerl.engine.normaliser import Normaliser, Raw, Standardised
from treerl.engine.objective import Edges, Loss
from treerl.engine.policy import Policy
from treerl.engine.step import Step
from treerl.engine.task import Samples
from treerl.engine.trainer import Trainer


@dataclass(frozen=True)
class Kept(Watched):
    """And the losses."""

    losses: list[Loss] = field(init=False, compare=False, default_factory=list)

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        loss = super().__call__(policy, edges)
        self.losses.append(replace(loss, value=loss.value.detach()))
        return loss


def test_the_figures_of_an_update_are_those_of_its_losses() -> None:
    objective = Kept(0.001)
    train, _ = trainer(replace(algorithm(objective=objective, epochs=3), reduction="edges"), lr=0.2)
    metrics = train.iterate(TASKS).metrics
    clipped = torch.cat([loss.clipped for loss in objective.losses])
    assert metrics["clip_fraction"] == pytest.approx(float(clipped.double().mean()), rel=1e-12)
    assert 0.05 < metrics["clip_fraction"] < 0.95
    # two halves of the nodes, three times; each is the mean over its edges
    losses = []
    edges = torch.tensor([len(loss.value) for loss in objective.losses]).cumsum(0).tolist()
    values = torch.cat([loss.value for loss in objective.losses])
    assert edges[-1] == 3 * 3 * SPEC.edges == metrics["edges"]
    batches = len(objective.losses) // 6
    for step in range(6):
        part = objective.losses[step * batches : (step + 1) * batches]
        losses.append(float(torch.cat([loss.value for loss in part]).mean()))
    assert len(values) == edges[-1]
    assert metrics["loss"] == pytest.approx(sum(losses) / 6, rel=1e-9)


def test_the_largest_gradient_of_an_iteration_is_reported() -> None:
    norms = []

    class Noting(Counted):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            norms.append(float(self.param_groups[0]["params"][0].grad.norm()))
            super().step(closure)

    train, env = trainer(algorithm(epochs=2))
    train.optimizer = Noting([env.theta], 0.5)
    metrics = train.iterate(TASKS).metrics
    assert len(norms) == 4 and min(norms) < max(norms)
    assert metrics["grad_norm"] == pytest.approx(max(norms), rel=1e-9)


def test_the_ratios_deviation_is_that_of_the_first_optimizer_step_alone() -> None:
    train, _ = trainer(algorithm())
    metrics = train.iterate(TASKS).metrics
    objective = train.algorithm.objective
    assert isinstance(objective, Watched)
    ratio = torch.cat(objective.ratios)
    assert metrics["ratio_deviation"] == 0 < float((ratio - 1).abs().max())


def noisy(samples: Samples) -> Tensor:
    """The larger the task's number, the more it varies; of the last task it is constant."""
    scale = torch.tensor([3.0 * (task != "a fox") for task in samples.tasks])
    return scale * samples.images[:, 0].sin() + 100 * samples.group


def scored(algorithm: Algorithm) -> Step:
    theta = torch.zeros(6, dtype=torch.float64).requires_grad_()
    env = Linear(FlowSDE(0.7), schedule(6, 3), theta, shape=(2,))
    rewards = PlainRewards({"sum": total, "noisy": noisy}, (1.0, -0.25))
    return Trainer(env, rewards, algorithm, Counted([theta], 0.0), 8).iterate(TASKS)


CHAINS = Algorithm(branching=Fixed(1, 3, 2), trees_per_prompt=5, baseline=Prompt())


@pytest.mark.parametrize("normaliser", [Standardised(), Raw()], ids=str)
def test_the_figures_of_a_rollout_are_those_of_its_leaves(normaliser: Normaliser) -> None:
    step = scored(replace(CHAINS, normaliser=normaliser))
    metrics = step.metrics
    each = step.scores[step.tree.leaves].view(3, 5, 2)
    both = each[..., 0] - 0.25 * each[..., 1]
    assert metrics["reward"] == pytest.approx(float(both.mean()), rel=1e-12)
    within = both.std(1, correction=0).mean()
    assert metrics["reward_std"] == pytest.approx(float(within), rel=1e-12)
    assert metrics["rewards"] == pytest.approx(
        {"sum": float(each[..., 0].mean()), "noisy": float(each[..., 1].mean())}, rel=1e-12
    )
    variance = each.var(1, correction=0).mean(0)
    stds = variance.sqrt().tolist()
    assert metrics["reward_stds"] == pytest.approx({"sum": stds[0], "noisy": stds[1]}, rel=1e-12)
    # in units of their own rewards vary by 1 each, and the squared weights alone share it
    unit = variance if isinstance(normaliser, Raw) else torch.ones(2)
    parts = [float(unit[0]), float(unit[1]) / 16]
    shares = {"sum": parts[0] / sum(parts), "noisy": parts[1] / sum(parts)}
    assert metrics["reward_shares"] == pytest.approx(shares, rel=1e-9)
    sampled = step.advantages.advantage[step.tree.edges]
    assert metrics["advantage_abs"] == pytest.approx(float(sampled.abs().mean()), rel=1e-12)
    assert (metrics["window_start"], metrics["leaves"], metrics["zero_std_prompts"]) == (2, 15, 0)
    assert metrics["sampling_forwards"] == 15 * 6 and step.iteration == 0


def test_prompts_whose_leaves_all_score_the_same_are_counted() -> None:
    theta = torch.zeros(6, dtype=torch.float64).requires_grad_()
    env = Linear(FlowSDE(0.7), schedule(6, 3), theta, shape=(2,))
    rewards = PlainRewards({"noisy": noisy})
    metrics = Trainer(env, rewards, CHAINS, Counted([theta]), 8).iterate(TASKS).metrics
    assert metrics["zero_std_prompts"] == 1
    assert (
        Trainer(env, SUM, CHAINS, Counted([theta]), 8).iterate(TASKS).metrics["zero_std_prompts"]
        == 0
    )
