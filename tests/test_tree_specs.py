"""Trees that differ from task to task, in one forest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from oracle import Neural, schedule
from plain import SUM, Counted, roots
from torch import Tensor

from treerl.engine import noise
from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import LeaveSubtreeOut
from treerl.engine.branching import Branching, Distribution
from treerl.engine.grow import grow
from treerl.engine.kernel import FlowSDE
from treerl.engine.objective import Clipped
from treerl.engine.step import Step
from treerl.engine.trainer import Trainer
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec

STOCHASTIC = (False, True, True, True, False, False)


def spec(*children: int) -> TreeSpec:
    return TreeSpec((1, *children, 1, 1), STOCHASTIC)


@dataclass(frozen=True)
class ByTask(Branching):
    """A task says itself how its tree splits: (2, 1, 3) at the three sampled steps."""

    def distribution(self, steps: int, iteration: int) -> Distribution:
        return ((1.0, spec(1, 1, 1)),)

    def support(self, steps: int) -> tuple[TreeSpec, ...]:
        widths = range(1, 4)
        return tuple(spec(a, b, c) for a in widths for b in widths for c in widths)

    def specs(
        self, steps: int, iteration: int, uniform: float, tasks: Sequence[Any]
    ) -> tuple[TreeSpec, ...]:
        return tuple(spec(*task) for task in tasks)


TASKS = ((2, 1, 3), (1, 1, 1), (3, 3, 1), (1, 2, 2), (2, 1, 3))


def iterate(tasks: Sequence[tuple[int, int, int]], keys: list[noise.Keys]) -> Step:
    env = Neural(FlowSDE(0.7), schedule(6, 3), (2,), torch.float32)
    env.content = torch.zeros(9, dtype=torch.int64)  # every row says the same
    algorithm = Algorithm(
        branching=ByTask(),
        trees_per_prompt=2,
        baseline=LeaveSubtreeOut(),
        objective=Clipped(0.2),
        previews=True,
    )
    optimizer = Counted(list(env.network.parameters()), 0.0)
    return Trainer(env, SUM, algorithm, optimizer, 8).iterate(tasks, keys)


def of(tree: Tree, row: int) -> list[Tensor]:
    """All that a forest keeps of one task's trees."""
    nodes = (tree.task == row).nonzero().flatten()
    stored = nodes[tree.slot[nodes] != Tree.DROPPED]
    assert tree.previewed is not None and tree.x0 is not None
    x0 = tree.x0[torch.isin(tree.previewed, nodes)]
    fields = (tree.log_prob.nan_to_num(), tree.key, tree.step, tree.stochastic)
    return [tree.at(stored).x, x0, *(values[nodes] for values in fields)]


def test_trees_that_differ_from_task_to_task_are_the_trees_grown_alone_bit_for_bit() -> None:
    keys = [noise.key(3, row) for row in range(len(TASKS))]
    forest = iterate(TASKS, keys)
    for row, task in enumerate(TASKS):
        alone = iterate([task], [keys[row]])
        for together, apart in zip(of(forest.tree, row), of(alone.tree, 0), strict=True):
            assert torch.equal(together, apart)
        nodes = forest.tree.task == row
        advantage = forest.advantages.advantage[nodes]
        assert torch.allclose(advantage, alone.advantages.advantage, rtol=0, atol=1e-12)


def test_a_forest_of_different_trees_costs_the_sum_of_their_specs() -> None:
    forest = iterate(TASKS, [noise.key(3, row) for row in range(len(TASKS))])
    specs = [spec(*task) for task in TASKS for _ in range(2)]
    counts = forest.metrics
    assert counts["sampling_forwards"] == sum(each.forwards for each in specs)
    assert counts["update_forwards"] == sum(each.decisions for each in specs)
    assert counts["edges"] == sum(each.edges for each in specs)
    assert counts["leaves"] == sum(each.leaves for each in specs)
    assert len(forest.tree.x) == sum(each.stored for each in specs)
    assert forest.tree.x0 is not None
    assert len(forest.tree.x0) == sum(each.previews for each in specs)
    assert all(each in ByTask().support(6) for each in specs)


def test_trees_of_one_forest_must_be_stochastic_at_the_same_steps() -> None:
    env = Neural(FlowSDE(0.7), schedule(6, 3))
    other = TreeSpec((1,) * 6, (True,) + (False,) * 5)
    with pytest.raises(ValueError, match="stochastic at the same steps"):
        grow(env, roots(2), [spec(2, 1, 1), other], 4)
    with pytest.raises(ValueError, match="a spec for each of 3 trees, got 2"):
        grow(env, roots(3), [spec(2, 1, 1), spec(1, 1, 1)], 4)


def test_by_default_every_task_of_an_iteration_grows_the_same_drawn_tree() -> None:
    @dataclass(frozen=True)
    class Either(Branching):
        def distribution(self, steps: int, iteration: int) -> Distribution:
            return ((0.25, spec(2, 1, 1)), (0.75, spec(1, 1, 2)))

    assert Either().specs(6, 0, 0.2, TASKS) == (spec(2, 1, 1),) * 5
    assert Either().specs(6, 0, 0.25, TASKS) == (spec(1, 1, 2),) * 5
    assert replace(spec(2, 1, 1), children=(1, 1, 1, 2, 1, 1)) == spec(1, 1, 2)
