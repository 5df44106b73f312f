"""The plan: which prompts an iteration takes, and the work of it counted by hand."""

from dataclasses import replace
from random import Random

import pytest
from plain import Always
from small_runs import SPEC, algorithm

from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import Geometric, Shift
from treerl.run.plan import Counts, Plan


def plan(chosen: Algorithm | None = None, **changes: int) -> Plan:
    whole = Plan(
        algorithm=chosen or Algorithm(),
        steps=6,
        iterations=7,
        prompts_per_iteration=3,
        rewards=2,
        seed=0,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("each", [1, 3, 4, 7])
def test_a_pass_takes_every_prompt_once_in_an_order_of_its_own(each: int) -> None:
    rows = []
    for iteration in range(60):
        rows += plan(prompts_per_iteration=each).rows(iteration, 5)
    passes = [rows[start : start + 5] for start in range(0, 60, 5)]
    for turn, taken in enumerate(passes):
        assert {number for number, _ in taken} == {turn}
        assert sorted(row for _, row in taken) == [0, 1, 2, 3, 4]
    assert len({tuple(row for _, row in taken) for taken in passes}) > 6


def test_the_order_of_prompts_follows_the_seed() -> None:
    assert plan().rows(0, 20) == plan().rows(0, 20) != plan(seed=1).rows(0, 20)


def test_the_work_of_a_prompt_is_that_of_its_trees_epochs_previews_and_rewards() -> None:
    chosen = replace(algorithm(epochs=3), trees_per_prompt=2)
    # children (1, 3, 1, 2, 1, 1): levels of 1, 1, 3, 3, 6, 6, 6 nodes, sampled at steps 1 to 3
    plain = Counts(
        sampling_forwards=2 * (1 + 1 + 3 + 3 + 6 + 6),
        update_forwards=2 * 3 * (1 + 3 + 3),
        edges=2 * 3 * (3 + 3 + 6),
        leaves=2 * 6,
        decodes=2 * 6,
        reward_calls=2 * 6 * 5,
    )
    assert plan(chosen, rewards=5).per_prompt(SPEC) == plain
    scored = 2 * (6 + 1 + 3 + 3 + 6)  # the leaves, and both ends of sampled edges
    expected = replace(plain, decodes=scored, reward_calls=5 * scored)
    assert plan(replace(chosen, previews=True), rewards=5).per_prompt(SPEC) == expected


def test_every_epoch_takes_its_optimizer_steps() -> None:
    whole = plan(replace(algorithm(epochs=3), branching=Always(SPEC)))
    table = whole.table()
    assert whole.updates == table["per_iteration"]["optimizer_steps"] == 2 * 3
    assert table["run"]["optimizer_steps"] == 7 * 2 * 3


@pytest.mark.parametrize("iterations", [1, 4, 5, 11, 40])
def test_a_window_that_comes_back_is_counted_as_often_as_it_comes(iterations: int) -> None:
    whole = plan(Algorithm(branching=Shift(2, 2, interval=1)))
    assert whole.total(iterations) == whole.drawn(iterations)
    random = plan(Algorithm(branching=Geometric(2, 2)))
    forwards = random.drawn(iterations * 100).sampling_forwards / 100
    assert random.total(iterations).sampling_forwards == pytest.approx(forwards, rel=0.15)


def test_of_10000_prompts_none_is_skipped_or_doubled_wherever_a_run_is_taken_up() -> None:
    whole = plan(prompts_per_iteration=48)
    random = Random(0)
    taken: list[tuple[int, int]] = []
    iteration = 0
    while len(taken) < 20_000:
        whole = replace(whole)  # another process, which knows no more than the iteration
        for _ in range(random.randint(1, 30)):
            taken += whole.rows(iteration, 10_000)
            iteration += 1
    assert sorted(taken[:20_000]) == [(turn, row) for turn in range(2) for row in range(10_000)]
