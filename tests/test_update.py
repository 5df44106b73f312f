"""The update: which edges it trains, how often, against which reference, and what it refuses."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from plain import PlainRewards
from small_runs import TASKS, Watched, algorithm, trainer
from torch import Tensor

from treerl.engine.objective import Clipped, EdgeObjective, Edges, Loss
from treerl.engine.policy import Gaussian, Policy
from treerl.engine.selection import Selection
from treerl.engine.step import Step
from treerl.engine.task import Samples
from treerl.engine.tree import Tree
from treerl.errors import InputError, NumericsError


@dataclass(frozen=True)
class Tied(EdgeObjective):
    """A pull towards the reference, whatever its weight."""

    weight: float = 0.0
    gaps: list[Tensor] = field(init=False, compare=False, default_factory=list)

    @property
    def weight_set(self) -> str | None:
        return "start"

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        assert isinstance(policy, Gaussian) and isinstance(edges.reference, Gaussian)
        assert not edges.reference.mean.requires_grad
        self.gaps.append((policy.mean - edges.reference.mean).detach())
        loss = Clipped(0.2)(policy, edges)
        return replace(loss, value=loss.value + self.weight * policy.kl(edges.reference))


def test_an_objective_gets_the_reference_that_it_needs_whatever_its_weight() -> None:
    objective = Tied()
    train, env = trainer(algorithm(objective=objective), lr=0.0)

    @contextmanager
    def as_it_started() -> Iterator[None]:
        env.theta.add_(0.25)
        yield
        env.theta.sub_(0.25)

    train.weight_sets = {"start": as_it_started}
    before = env.theta.detach().clone()
    step = train.iterate(TASKS)
    factors = env.noisy.prediction
    gaps = sorted(float(gap) for gap in torch.cat(objective.gaps))
    k = step.tree.step[step.tree.edges] - 1
    assert gaps == pytest.approx(sorted((-0.25 * factors[k]).tolist()), abs=1e-12)
    assert torch.allclose(env.theta.detach(), before, rtol=0, atol=1e-15)


def test_an_edge_is_told_what_stands_in_the_tree_about_it() -> None:
    objective = Watched()
    train, env = trainer(algorithm(objective=objective))
    step = train.iterate(TASKS)
    tree = step.tree
    place = {float(x): node for node, x in zip(tree.edges.tolist(), latents(tree), strict=True)}
    assert len(place) == len(tree.edges) == sum(len(edges.x) for edges in objective.met)
    for edges in objective.met:
        nodes = torch.tensor([place[float(x)] for x in edges.x.flatten()])
        parents = tree.parent[nodes]
        assert torch.equal(edges.step, tree.step[parents])
        assert torch.equal(edges.sigma, env.schedule.sigma[tree.step[parents]])
        assert torch.equal(edges.task, tree.task[nodes])
        assert torch.equal(edges.advantage, step.advantages.advantage[nodes])
        assert torch.equal(edges.log_prob, tree.log_prob[nodes])


def latents(tree: Tree) -> Tensor:
    """Those at the ends of the sampled edges, in one dimension."""
    return tree.at(tree.edges).x.flatten()


def test_without_a_reference_an_objective_that_needs_one_is_refused_by_name() -> None:
    train, _ = trainer(algorithm(objective=Tied()))
    with pytest.raises(InputError, match="objective: Tied asks for the weights 'start', got old"):
        train.iterate(TASKS)


def test_a_loss_of_the_wrong_shape_is_refused_by_name() -> None:
    @dataclass(frozen=True)
    class Mean(EdgeObjective):
        def __call__(self, policy: Policy, edges: Edges) -> Loss:
            loss = Clipped(0.2)(policy, edges)
            return replace(loss, value=loss.value.mean())

    train, _ = trainer(algorithm(objective=Mean()))
    with pytest.raises(NumericsError, match=r"objective Mean: expected losses of shape \(\d+,\)"):
        train.iterate(TASKS)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_the_run_and_nothing_moved(bad: float) -> None:
    @dataclass(frozen=True)
    class Explodes(EdgeObjective):
        def __call__(self, policy: Policy, edges: Edges) -> Loss:
            loss = Clipped(0.2)(policy, edges)
            return replace(loss, value=loss.value * bad)

    train, env = trainer(algorithm(objective=Explodes()))
    before = env.theta.detach().clone()
    message = "update: iteration 1: the gradient is not finite; nothing moved"
    with pytest.raises(NumericsError, match=message):
        train.iterate(TASKS)
    assert torch.equal(env.theta.detach(), before)


def test_an_interrupt_is_looked_for_until_the_first_optimizer_step_and_not_after_it() -> None:
    """What is saved then belongs to a whole iteration: none of the update, or all of it."""
    train, env = trainer(algorithm())
    calls: list[int] = []

    def check_interrupt() -> None:
        calls.append(env.forwards)

    train.check_interrupt = check_interrupt
    step = train.iterate(TASKS)
    batches = env.forwards // 4  # every forward has four rows
    assert calls == [4 * number for number in range(len(calls))]
    assert sum(step.tree.sizes[:-1]) / 4 < len(calls) < batches


def test_what_scoring_and_credit_compute_leaves_no_graph_behind() -> None:
    train, env = trainer(algorithm())

    def with_a_graph(samples: Samples) -> Tensor:
        return samples.images.sum(1) * (1 + env.theta.sum() * 0)

    train.rewards = PlainRewards({"graph": with_a_graph})
    step = train.iterate(TASKS)
    assert not step.scores.requires_grad and not step.advantages.advantage.requires_grad


def test_every_part_observes_what_an_iteration_did_after_its_update() -> None:
    observed: list[tuple[str, int, list[float]]] = []

    @dataclass(frozen=True)
    class Curious(Selection):
        def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
            return tree.stochastic

        def observe(self, step: Step) -> None:
            assert step.tasks == TASKS and len(step.scores) == len(step.tree)
            assert (
                len(step.samples(step.tree.leaves))
                == len(step.tree.leaves)
                == step.metrics["leaves"]
            )
            observed.append(("selection", step.iteration, env.theta.tolist()))

    train, env = trainer(algorithm(Curious()))
    before = env.theta.tolist()
    train.iterate(TASKS)
    after = env.theta.tolist()
    train.iterate(TASKS)
    assert observed == [("selection", 0, after), ("selection", 1, env.theta.tolist())]
    assert before != after
    parts = train.algorithm.components()
    names = ["branching", "coupling", "normaliser", "weighting", "baseline"]
    assert list(parts) == [*names, "selection", "objective"]
    assert all(part.state() == {} for part in parts.values())
    for part in parts.values():
        part.restore({})
        with pytest.raises(ValueError, match="has no memory, but was given"):
            part.restore({"weights": torch.zeros(1)})
