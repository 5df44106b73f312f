"""Selections and epochs: which edges an update trains, how often, and that no other moves."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from plain import Counted
from small_runs import SPEC, TASKS, Watched, algorithm, seen, trainer
from torch import Tensor

from treerl.engine import noise
from treerl.engine.minibatch import minibatches
from treerl.engine.selection import All, Selection, Share
from treerl.engine.tree import Tree
from treerl.errors import NumericsError


@dataclass(frozen=True)
class AtSteps(Selection):
    """Trains the edges that leave from some steps."""

    steps: tuple[int, ...]

    def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
        return tree.stochastic & torch.isin(tree.step - 1, torch.tensor(self.steps))


@dataclass(frozen=True)
class AboveReward(Selection):
    """Trains the edges whose advantage is above a threshold."""

    threshold: float

    def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
        return tree.stochastic & (advantage > self.threshold)


def test_by_default_every_sampled_edge_is_trained_exactly_once() -> None:
    train, _ = trainer(algorithm())
    step = train.iterate(TASKS)
    expected = step.tree.at(step.tree.edges).x.flatten().sort().values
    assert torch.equal(seen(train.algorithm.objective), expected)


@pytest.mark.parametrize("steps", [(1,), (2, 3), (3,)])
def test_a_selection_by_depth_moves_the_steps_that_it_chose_and_no_other(
    steps: tuple[int, ...],
) -> None:
    train, env = trainer(algorithm(AtSteps(steps)))
    before = env.theta.detach().clone()
    step = train.iterate(TASKS)
    changed = (env.theta.detach() != before).nonzero().flatten().tolist()
    assert changed == list(steps)
    chosen = torch.isin(step.tree.step[step.tree.edges] - 1, torch.tensor(steps))
    assert step.metrics["edges"] == int(chosen.sum())
    assert torch.equal(
        seen(train.algorithm.objective),
        step.tree.at(step.tree.edges[chosen]).x.flatten().sort().values,
    )


def test_a_selection_by_reward_trains_the_edges_above_its_threshold_and_no_other() -> None:
    train, _ = trainer(algorithm(AboveReward(0.8)))
    step = train.iterate(TASKS)
    advantage = step.advantages.advantage[step.tree.edges]
    chosen = step.tree.edges[advantage > 0.8]
    assert 0 < len(chosen) < len(step.tree.edges)
    expected = step.tree.at(chosen).x.flatten().sort().values
    assert torch.equal(seen(train.algorithm.objective), expected)
    met = torch.cat([edges.advantage for edges in train.algorithm.objective.met])  # type: ignore[attr-defined]
    assert float(met.min()) > 0.8


def test_a_task_none_of_whose_edges_is_chosen_does_not_move() -> None:
    @dataclass(frozen=True)
    class OfTask(Selection):
        row: int

        def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
            return tree.stochastic & (tree.task == self.row)

    train, env = trainer(algorithm(OfTask(1)), per_task=True)
    before = env.theta.detach().clone()
    train.iterate(TASKS)
    assert (env.theta.detach() != before).any(1).tolist() == [False, True, False]


def test_a_random_share_trains_other_nodes_in_every_iteration_with_all_their_edges() -> None:
    train, _ = trainer(algorithm(Share(0.3)), lr=0.0)
    chosen = []
    for _ in range(8):
        objective = Watched()
        train.algorithm = replace(train.algorithm, objective=objective)
        step = train.iterate(TASKS)
        trained = torch.isin(step.tree.at(step.tree.edges).x.flatten(), seen(objective))
        parents = torch.unique(step.tree.parent[step.tree.edges[trained]])
        whole = torch.isin(step.tree.parent[step.tree.edges], parents)
        assert torch.equal(trained, whole)  # siblings go together
        assert torch.equal(step.trained[step.tree.edges], trained)
        assert not step.trained[~step.tree.stochastic].any()
        assert len(parents) == 3 * Share(0.3).decisions(SPEC)
        chosen.append(tuple((parents % 7).tolist()))
    assert len(set(chosen)) > 5


@pytest.mark.parametrize("bad", ["shape", "dtype"])
def test_a_selection_that_breaks_its_contract_is_named(bad: str) -> None:
    @dataclass(frozen=True)
    class Broken(Selection):
        def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
            return tree.edges if bad == "shape" else advantage

    train, _ = trainer(algorithm(Broken()))
    with pytest.raises(NumericsError, match=r"selection Broken: expected \(\d+,\) bool, got"):
        train.iterate(TASKS)


def test_an_update_without_a_single_edge_moves_nothing_and_says_so() -> None:
    train, env = trainer(algorithm(AboveReward(1e6)))
    before = env.theta.detach().clone()
    metrics = train.iterate(TASKS).metrics
    assert torch.equal(env.theta.detach(), before)
    zeros = ("loss", "edges", "update_forwards", "clip_fraction", "ratio_deviation", "grad_norm")
    assert [metrics[name] for name in zeros] == [0] * 6


@pytest.mark.parametrize("selection", [All(), Share(0.5)], ids=str)
def test_two_epochs_train_the_same_edges_twice_and_the_second_meets_a_moved_policy(
    selection: Selection,
) -> None:
    single, _ = trainer(algorithm(selection))
    single.iterate(TASKS)
    double, _ = trainer(algorithm(selection, epochs=2))
    step = double.iterate(TASKS)
    objective = double.algorithm.objective
    assert isinstance(objective, Watched)
    assert isinstance(double.optimizer, Counted) and double.optimizer.steps == 2 * 2
    once = seen(single.algorithm.objective)
    assert torch.equal(seen(objective), once.repeat_interleave(2))
    assert step.metrics["edges"] == 2 * len(once)
    ratio = torch.cat(objective.ratios)
    first = len(objective.met[0].x)
    assert torch.equal(ratio[:first], torch.ones(first, dtype=torch.float64))
    assert bool((ratio[len(once) :] != 1).all())
    assert step.metrics["ratio_deviation"] == 0
    log_prob = torch.cat([edges.log_prob for edges in objective.met])
    assert torch.equal(log_prob.sort().values[::2], log_prob.sort().values[1::2])


def test_the_nodes_of_an_optimizer_step_are_drawn_anew_for_every_order() -> None:
    train, _ = trainer(algorithm())
    tree = train.iterate(TASKS).tree
    halves = []
    for iteration in range(6):
        order = noise.generator(0, noise.Stream.SHUFFLE, iteration)
        steps = minibatches(tree, tree.stochastic, 2, 4, order)
        nodes = [torch.cat([batch.parents[: batch.real] for batch in step]) for step in steps]
        both = torch.cat(nodes)
        assert both.sort().values.tolist() == torch.unique(tree.parent[tree.edges]).tolist()
        halves.append(frozenset(nodes[0].tolist()))
    # in the order in which they grew, the first half would be the young nodes, whatever the order
    assert len(set(halves)) == 6
