"""Parts of an algorithm that learn: a branching that remembers, and a critic with parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from oracle import Linear, closed_form, schedule
from plain import SUM, Absolute, Always, Counted, PlainRewards
from torch import Tensor

from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import Baseline, LeaveSubtreeOut, Reference
from treerl.engine.branching import Branching, Distribution, window
from treerl.engine.kernel import FlowSDE
from treerl.engine.objective import Clipped
from treerl.engine.step import Step
from treerl.engine.task import Samples
from treerl.engine.trainer import Trainer
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weighting import Backup

TASKS = ("a cat", "a dog", "a fox", "a hen")


@dataclass(frozen=True)
class WhereTheyDiffered(Branching):
    """Splits where the last iterations' siblings differed most, and at one more step in turn.

    All steps but the last are sampled.
    """

    branching_factor: int = 3
    decay: float = 0.5
    memory: dict[str, Tensor] = field(init=False, compare=False, default_factory=dict)

    def support(self, steps: int) -> tuple[TreeSpec, ...]:
        pairs = [(a, b) for a in range(steps - 1) for b in range(a, steps - 1)]
        return tuple(self._spec(steps, pair) for pair in pairs)

    def distribution(self, steps: int, iteration: int) -> Distribution:
        gap = self.memory.get("gap", torch.zeros(steps - 1))
        pair = (int(gap.argmax()), iteration % (steps - 1))
        return ((1.0, self._spec(steps, pair)),)

    def observe(self, step: Step) -> None:
        tree = step.tree
        gap = self.memory.get("gap", torch.zeros(tree.steps - 1, dtype=torch.float64)).clone()
        for k in range(tree.steps - 1):
            level = tree.level(k + 1)
            families = tree.sizes[k + 1] // tree.sizes[k]
            if families > 1:
                spread = step.advantages.values[level].view(-1, families).std(1).mean()
                gap[k] = self.decay * gap[k] + (1 - self.decay) * spread
        self.memory["gap"] = gap

    def state(self) -> dict[str, Tensor]:
        return dict(self.memory)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.memory.clear()
        self.memory.update(state)

    def _spec(self, steps: int, splits: tuple[int, int]) -> TreeSpec:
        children = [self.branching_factor if step in splits else 1 for step in range(steps)]
        return TreeSpec(tuple(children), (True,) * (steps - 1) + (False,))


def run(branching: Branching, iterations: range, theta: Tensor) -> list[Step]:
    theta.requires_grad_()
    env = Linear(FlowSDE(0.7), schedule(6, 3), theta)
    algorithm = Algorithm(
        branching=branching,
        baseline=LeaveSubtreeOut(),
        objective=Clipped(0.2),
        optimizer_steps=1,
    )
    train = Trainer(env, SUM, algorithm, Counted([theta], 0.1), 8, iteration=iterations.start)
    return [train.iterate(TASKS) for _ in iterations]


def children(step: Step) -> tuple[int, ...]:
    sizes = step.tree.sizes
    return tuple(after // before for before, after in pairwise(sizes))


def test_a_branching_that_remembers_splits_where_siblings_differed_most() -> None:
    branching = WhereTheyDiffered()
    steps = run(branching, range(12), torch.zeros(6, dtype=torch.float64))
    gap = torch.zeros(5, dtype=torch.float64)
    for number, step in enumerate(steps):
        split = [k for k in range(5) if children(step)[k] == 3]
        assert split == sorted({int(gap.argmax()), number % 5})
        for k in split:
            families = step.advantages.values[step.tree.level(k + 1)].view(-1, 3)
            gap[k] = (gap[k] + families.std(1).mean()) / 2
    assert torch.allclose(branching.memory["gap"], gap, rtol=1e-12, atol=0)
    assert len({children(step) for step in steps}) > 6
    sampled = (True,) * 5 + (False,)
    support = branching.support(6)
    for step in steps:
        assert TreeSpec(children(step), sampled) in support


def test_a_branching_that_is_restored_grows_the_very_trees_of_one_that_never_stopped() -> None:
    whole = WhereTheyDiffered()
    theta = torch.zeros(6, dtype=torch.float64)
    run(whole, range(7), theta)
    kept = theta.detach().clone()
    state = {name: tensor.clone() for name, tensor in whole.state().items()}
    expected = run(whole, range(7, 10), theta)
    restored = WhereTheyDiffered()
    restored.restore(state)
    again = run(restored, range(7, 10), kept.clone())
    for step, other in zip(expected, again, strict=True):
        assert torch.equal(step.tree.x, other.tree.x)
        assert torch.equal(step.tree.key, other.tree.key)
        assert torch.equal(step.advantages.advantage, other.advantages.advantage)
    forgetful = run(WhereTheyDiffered(), range(7, 10), kept.clone())
    specs = [children(step) for step in expected]
    assert [children(step) for step in forgetful] != specs


def test_an_algorithm_is_compared_by_its_parameters_and_not_by_what_it_remembers() -> None:
    fresh = Algorithm(branching=WhereTheyDiffered())
    used = Algorithm(branching=WhereTheyDiffered())
    run(used.branching, range(1), torch.zeros(6, dtype=torch.float64))
    assert fresh == used and fresh.branching.state() != used.branching.state()
    assert fresh != replace(used, branching=WhereTheyDiffered(decay=0.9))


@dataclass(frozen=True)
class Critic(Baseline):
    """The value of a parent, linear in its latent and its task at every step."""

    tasks: int
    steps: int = 6
    sees_tasks: bool = True
    rate: float = 0.05
    weights: Tensor = field(init=False, compare=False)  # [T + 1, tasks, 2]

    def __post_init__(self) -> None:
        shape = (self.steps + 1, self.tasks, 2)
        weights = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        object.__setattr__(self, "weights", weights)

    def value(self, tree: Tree, nodes: Tensor, tasks: Sequence[Any]) -> Tensor:
        state = tree.at(nodes)
        rows = [int(tasks[row]) if self.sees_tasks else 0 for row in state.task.tolist()]
        weight = self.weights[state.step, torch.tensor(rows)]
        return weight[:, 0] * state.x[:, 0] + weight[:, 1]

    def __call__(self, tree: Tree, backup: Backup, tasks: Sequence[Any]) -> Reference:
        centre = backup.values.clone()
        edges = tree.edges
        centre[edges] = self.value(tree, tree.parent[edges], tasks)
        return Reference(centre, torch.ones_like(centre))

    def observe(self, step: Step) -> None:
        edges = step.tree.edges
        for _ in range(10):
            error = step.advantages.values[edges] - self.value(
                step.tree, step.tree.parent[edges], step.tasks
            )
            gradient = torch.autograd.grad(error.square().sum(), self.weights)[0]
            with torch.no_grad():
                self.weights.sub_(self.rate * gradient / len(step.tasks))

    def state(self) -> dict[str, Tensor]:
        return {"weights": self.weights.detach().clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.weights.copy_(state["weights"])


@dataclass(frozen=True)
class Nothing(Baseline):
    """Advantages are the values themselves."""

    def __call__(self, tree: Tree, backup: Backup, tasks: Sequence[Any]) -> Reference:
        return Reference(torch.zeros_like(backup.values), torch.ones_like(backup.values))


def by_task(samples: Samples) -> Tensor:
    """x and a constant of the task: what only a critic that sees the task can take off."""
    offset = torch.tensor([3.0 * float(task) for task in samples.tasks], dtype=torch.float64)
    return samples.images[:, 0] + offset


def gradients(baseline: Baseline, warm_up: int, count: int = 50) -> Tensor:
    """The gradients `[count, T]` of iterations at one and the same policy."""
    tasks = ("-1", "0", "1", "2") * 4
    theta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    env = Linear(FlowSDE(0.7), schedule(6, 3), theta)
    algorithm = Algorithm(
        branching=Always(window(6, 1, 3, 1)),
        normaliser=Absolute(),
        baseline=baseline,
        normalise=False,
        advantage_clip=1e9,
        objective=Clipped(0.2),
        reduction="depths",
        optimizer_steps=1,
    )
    rewards = PlainRewards({"x": by_task})
    train = Trainer(env, rewards, algorithm, Counted([theta]), 64, max_grad_norm=1e9)
    rows = []
    for _ in range(warm_up + count):
        with torch.no_grad():
            theta.zero_()
        train.iterate(tasks)
        rows.append(theta.detach().clone())
    return 3 * torch.stack(rows[warm_up:])


def test_a_critic_that_learns_and_sees_the_tasks_takes_the_variance_off_and_adds_no_bias() -> None:
    plain = gradients(Nothing(), 0)
    critic = gradients(Critic(4), 40)
    blind = gradients(Critic(4, sees_tasks=False), 40)
    sampled = [1, 2, 3]
    spread, blind_spread, plain_spread = (
        float(rows.var(0)[sampled].sum()) for rows in (critic, blind, plain)
    )
    assert spread < 0.3 * blind_spread < 0.3 * plain_spread
    stochastic = window(6, 1, 3, 1).stochastic
    closed = closed_form(FlowSDE(0.7), schedule(6, 3).sigma.tolist(), 0.4, 0.5, stochastic)
    exact = torch.tensor(closed.gradient(), dtype=torch.float64)
    for rows in (plain, critic, blind):
        z = (rows.mean(0) - exact) / (rows.std(0) / len(rows) ** 0.5)
        assert float(z[sampled].abs().max()) <= 4
    assert critic.mean(0)[sampled].tolist() == pytest.approx(exact[sampled].tolist(), rel=0.1)


def test_a_critic_that_is_restored_credits_as_the_one_that_was_saved() -> None:
    saved = Critic(4)
    gradients(saved, 0, 10)
    restored = Critic(4)
    restored.restore(saved.state())
    assert torch.equal(gradients(saved, 0, 3), gradients(restored, 0, 3))
    assert not torch.equal(gradients(Critic(4), 0, 3), gradients(saved, 0, 3))
