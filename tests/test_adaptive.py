"""Trees that go where they teach, for what a fixed window costs."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from oracle import Neural, schedule

from treerl.engine.algorithm import Algorithm
from treerl.engine.allocation import allocate, mean_errors
from treerl.engine.branchings.adaptive import Adaptive
from treerl.engine.kernel import FlowSDE
from treerl.engine.normaliser import Centred
from treerl.engine.objective import Clipped
from treerl.engine.step import Step
from treerl.engine.task import Samples
from treerl.engine.trainer import Trainer
from treerl.engine.tree_spec import Tail
from treerl.run.plan import Plan
from treerl.run.run import work_of

TASKS = ("loud", "quiet", "silent")
LOUDNESS = {"loud": 1.0, "quiet": 0.4, "silent": 0.0}


class Loud:
    """A reward that says much of one task and nothing of another."""

    names = ("loud",)
    weights = torch.ones(1, dtype=torch.float64)

    def __call__(self, samples: Samples) -> torch.Tensor:
        loudness = torch.tensor([LOUDNESS[task] for task in samples.tasks], dtype=torch.float64)
        return (samples.images.double().flatten(1).sum(1) * loudness)[:, None]


def nodes(shape: tuple[int, ...]) -> float:
    """Of the trees of a prompt: the leaves, and what leads to them."""
    return sum(itertools.accumulate(shape, int.__mul__))


def trainer(branching: Adaptive, **changes: object) -> Trainer:
    env = Neural(FlowSDE(0.7), schedule(8, 3), (3,), torch.float64)
    env.content = torch.zeros(9, dtype=torch.int64)
    algorithm = Algorithm(branching=branching, objective=Clipped(0.2), normalise=False)
    algorithm = replace(algorithm, **changes)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(env.network.parameters(), lr=0.0)
    return Trainer(env, Loud(), algorithm, optimizer, 8)


def iterate(train: Trainer, times: int, tasks: Sequence[str] = TASKS) -> Step:
    for _ in range(times):
        step = train.iterate(list(tasks))
    return step


def leaves(step: Step) -> list[int]:
    """Of each task."""
    return torch.bincount(step.tree.task[step.tree.leaves], minlength=len(step.tasks)).tolist()


def test_the_error_of_a_mean_is_its_variance_in_several_stages() -> None:
    variance = torch.tensor([[4.0, 6.0, 12.0]], dtype=torch.float64)
    (error,) = mean_errors(variance, torch.tensor([[2, 3, 2]])).flatten().tolist()
    assert error == 4 / 2 + 6 / 6 + 12 / 12
    generator = torch.Generator().manual_seed(0)
    stages = [torch.randn(40_000, *size, generator=generator) for size in ((2,), (2, 3), (2, 3, 2))]
    between = stages[0][:, :, None, None] * 2 + stages[1][..., None] * 6**0.5
    means = (between + stages[2] * 12**0.5).flatten(1).mean(1)
    assert float(means.var()) == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize("budget", range(10, 60, 7))
def test_what_is_chosen_is_nearly_the_best_of_all_choices(budget: int) -> None:
    variance = torch.tensor([[0.2, 1.0, 0.1], [0.0, 0.1, 0.6]], dtype=torch.float64)
    shapes = [(t, a, b) for t in (1, 2) for a in (2, 3, 4) for b in (1, 2, 3, 4)]
    cost = torch.tensor([nodes(shape) for shape in shapes], dtype=torch.float64)
    errors = mean_errors(variance, torch.tensor(shapes))
    pairs = errors[0][:, None] + errors[1][None]
    best = float(pairs[cost[:, None] + cost[None] <= budget].min())
    chosen = allocate(errors, cost, budget)
    assert float(cost[chosen].sum()) <= budget
    assert best <= float(errors[[0, 1], chosen].sum()) <= 1.06 * best


@pytest.mark.parametrize("scale", [1e-9, 1e6])
def test_the_unit_of_the_reward_does_not_matter(scale: float) -> None:
    cost = torch.tensor([30.0, 31.0, 32.0], dtype=torch.float64)
    errors = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.1, 0.05]], dtype=torch.float64)
    for budget in (60.0, 61.0, 62.5, 64.0):
        chosen = allocate(scale * errors, cost, budget)
        assert float(cost[chosen].sum()) <= budget
        assert chosen.tolist() == allocate(errors, cost, budget).tolist()


def test_what_decides_nothing_gets_the_least() -> None:
    cost = torch.tensor([3.0, 5.0, 9.0], dtype=torch.float64)
    errors = torch.tensor([[0.5, 0.3, 0.1], [0, 0, 0]], dtype=torch.float64)
    assert allocate(errors, cost, 13.0).tolist() == [2, 0]
    with pytest.raises(ValueError, match="a budget for 2 of the smallest"):
        allocate(errors, cost, 5.0)


@pytest.mark.parametrize("tail", [(1, 1), (2, 1), (5, 1), (2, 2)])
@pytest.mark.parametrize("trees", [1, 2])
def test_an_iteration_costs_what_the_fixed_window_would_or_a_little_less(
    trees: int, tail: tuple[int, int]
) -> None:
    branching = Adaptive(2, 3, 1)
    changes = {"tail_stride": tail[0], "tail_order": tail[1], "trees_per_prompt": trees}
    train = trainer(branching, **changes)
    plan = Plan(train.algorithm, 8, 4, len(TASKS), 1, 0)
    planned = plan.drawn_in(0)
    whole = branching.support(8)
    assert train.algorithm.trees.support(8) == tuple(spec.walked(Tail(*tail)) for spec in whole)
    most = planned.sampling_forwards + 3 * planned.update_forwards
    for number in range(4):
        step = train.iterate(list(TASKS))
        work = work_of(step)
        spent = work.sampling_forwards + 3 * work.update_forwards
        assert spent <= most
        assert (spent == most) == (number == 0) or spent > 0.9 * most
        kept = len(step.tree.x)
        assert kept <= len(TASKS) * train.algorithm.trees.stored(8, trees)


def test_leaves_go_to_the_prompts_whose_samples_differ() -> None:
    step = iterate(trainer(Adaptive(3, 3, 1), normaliser=Centred()), 4)
    loud, quiet, silent = leaves(step)
    assert silent == 2 < quiet < loud


def test_splits_go_to_the_steps_that_decide() -> None:
    branching = Adaptive(2, 3, 1, most_trees=1, explore=0.0)
    branching.memory["prompts"] = torch.tensor([7])
    branching.memory["variance"] = torch.ones(1, dtype=torch.float64)
    branching.memory["profile"] = torch.tensor([0.0, 1.0, 0.0, 9.0], dtype=torch.float64)
    ((late,),) = branching.forest(8, 1, 0.5, ("anything",), 1)
    branching.memory["profile"] = torch.tensor([0.0, 9.0, 0.0, 0.1], dtype=torch.float64)
    ((early,),) = branching.forest(8, 1, 0.5, ("anything",), 1)
    assert late.children[3] > early.children[3] and early.children[1] > late.children[1]


def test_the_trees_are_the_same_from_a_checkpoint_and_whatever_the_order_of_tasks() -> None:
    branching = Adaptive(2, 3, 1)
    iterate(trainer(branching, normaliser=Centred()), 3)
    other = Adaptive(2, 3, 1)
    other.restore(branching.state())
    forest = branching.forest(8, 3, 0.5, TASKS, 1)
    assert other.forest(8, 3, 0.5, TASKS, 1) == forest
    assert other.forest(8, 3, 0.5, TASKS[::-1], 1) == forest[::-1]
    assert all(spec in other.support(8) for own in forest for spec in own)
    with pytest.raises(ValueError, match="expected profile, prompts, variance, got profile"):
        other.restore({"profile": torch.ones(4)})


def test_a_prompt_that_was_not_met_counts_as_an_average_one() -> None:
    branching = Adaptive(3, 3, 1)
    iterate(trainer(branching, normaliser=Centred()), 2)
    sizes = [sum(spec.leaves for spec in own) for own in branching.forest(8, 2, 0, TASKS, 1)]
    strange = [*TASKS[1:], "never seen"]
    new = [sum(spec.leaves for spec in own) for own in branching.forest(8, 2, 0, strange, 1)]
    assert new[-1] > new[0] and sizes[0] > sizes[1]


def test_the_first_iteration_grows_the_fixed_window() -> None:
    step = iterate(trainer(Adaptive(3, 2, 1)), 1)
    assert leaves(step) == [9, 9, 9]
    assert Adaptive(3, 2, 1).distribution(8, 5)[0][1].leaves == 9
