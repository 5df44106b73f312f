"""Branchings: the trees that they may grow, how often, and what is refused."""

import math
from dataclasses import dataclass

import pytest

from treerl.engine.branching import (
    Branching,
    Distribution,
    Fixed,
    Geometric,
    Shift,
    Uniform,
    draw,
    window,
)
from treerl.engine.recipes import recipes
from treerl.engine.tree_spec import TreeSpec


def expected_forwards(branching: Branching, iterations: int = 1) -> float:
    total = 0.0
    for distribution, times in branching.phases(10, iterations):
        total += times * sum(chance * spec.forwards for chance, spec in distribution)
    return total / iterations


def test_the_random_window_has_the_printed_distribution_and_cost() -> None:
    distribution = Geometric(3, 3, 0.5).distribution(10, 0)
    assert [spec.start for _, spec in distribution] == list(range(7))
    printed = [0.504, 0.252, 0.126, 0.063, 0.0315, 0.0157, 0.0079]
    assert [chance for chance, _ in distribution] == pytest.approx(printed, abs=5e-4)
    mean = sum(chance * spec.start for chance, spec in distribution)
    assert mean == pytest.approx(0.945, abs=5e-4)
    assert all(not spec.stochastic[-1] for _, spec in distribution)
    costs = [expected_forwards(Geometric(3, 3, ratio)) for ratio in (0.3, 0.5, 0.7, 0.9999)]
    assert costs == pytest.approx([190.9, 177.4, 157.7, 124.0], abs=0.1)
    assert expected_forwards(Uniform(3, 3)) == pytest.approx(124.0, abs=1e-9)
    chances = [chance for chance, _ in Uniform(3, 3).distribution(10, 0)]
    assert sum(chances) == pytest.approx(1, abs=1e-12)


def test_the_shifting_window_of_the_authors_code_visits_each_start_for_fifty_iterations() -> None:
    shift = Shift(2, 4, 50, 1)
    starts = [shift.distribution(10, iteration)[0][1].start for iteration in range(301)]
    assert starts == [start for start in range(6) for _ in range(50)] + [0]
    assert expected_forwards(shift, 300) == pytest.approx(73.5, abs=1e-9)


@pytest.mark.parametrize(
    ("interval", "stride", "starts"),
    [(1, 1, [0, 1, 2, 3, 4, 5, 0, 1]), (2, 2, [0, 0, 2, 2, 4, 4, 0, 0]), (1, 4, [0, 4, 2, 0])],
)
def test_a_shifting_window_moves_by_its_stride_after_each_interval_and_back_after_the_end(
    interval: int, stride: int, starts: list[int]
) -> None:
    shift = Shift(2, 4, interval, stride)
    met = [shift.distribution(10, number)[0][1].start for number in range(len(starts))]
    assert met == starts


@pytest.mark.parametrize("stride", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("interval", [1, 3])
def test_the_support_of_a_shifting_window_is_every_tree_that_it_ever_grows(
    stride: int, interval: int
) -> None:
    shift = Shift(2, 4, interval, stride)
    ever = {shift.distribution(10, iteration)[0][1] for iteration in range(100)}
    assert set(shift.support(10)) == ever and len(shift.support(10)) == len(ever)


def test_the_support_lists_trees_that_start_at_one_step_and_split_differently() -> None:
    @dataclass(frozen=True)
    class Combs(Branching):
        def distribution(self, steps: int, iteration: int) -> Distribution:
            early = TreeSpec((3, 1, 1), (True, True, False))
            late = TreeSpec((1, 3, 1), (True, True, False))
            return ((0.5, early), (0.25, late), (0.25, early))

    support = Combs().support(3)
    assert [spec.children for spec in support] == [(3, 1, 1), (1, 3, 1)]
    assert [spec.start for spec in support] == [0, 0]
    assert [spec.forwards for spec in support] == [7, 5]


def test_trees_are_drawn_as_often_as_their_distribution_says() -> None:
    distribution = Geometric(3, 3, 0.5).distribution(10, 0)
    starts = [draw(distribution, (place + 0.5) / 10_000).start for place in range(10_000)]
    for start, (chance, _) in enumerate(distribution):
        assert starts.count(start) / 10_000 == pytest.approx(chance, abs=2e-4)
    assert draw(distribution, math.nextafter(1.0, 0.0)).start == 6


@pytest.mark.parametrize(
    ("recipe", "forwards", "decisions", "leaves"),
    [
        ("treegrpo", 177.4, 13, 27),
        ("treegrpo-code", 111, 15, 16),
        ("flowgrpo", 240, 216, 24),
        ("dancegrpo", 120, 60, 12),
        ("mixgrpo", 120, 48, 12),
    ],
)
def test_a_recipe_costs_a_prompt_what_its_paper_counts(
    recipe: str, forwards: float, decisions: int, leaves: int
) -> None:
    # of G chains at T steps: T·G forwards, and floor(.99 T)·G, floor(f (T-1))·G or w·G decisions
    algorithm = recipes[recipe]
    trees = algorithm.trees_per_prompt
    distribution = algorithm.branching.distribution(10, 0)
    mean = sum(chance * spec.forwards for chance, spec in distribution)
    assert trees * mean == pytest.approx(forwards, abs=0.05)
    for _, spec in distribution:
        assert trees * algorithm.selection.decisions(spec) == decisions
        assert trees * spec.leaves == leaves
    assert algorithm.name == recipe and "arXiv" in algorithm.source


@pytest.mark.parametrize(("start", "depth"), [(-1, 2), (0, 0), (7, 3), (0, 10)])
def test_a_window_that_would_reach_the_last_step_is_refused(start: int, depth: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        window(10, start, depth, 2)


@pytest.mark.parametrize(
    "branching", [Geometric(3, 10), Uniform(3, 10), Shift(2, 10), Fixed(1, 10)]
)
def test_a_window_longer_than_the_steps_before_the_last_is_refused(branching: Branching) -> None:
    with pytest.raises(ValueError, match=r"expected depth <= env.steps - 1 = 9, got 10"):
        branching.distribution(10, 0)
    with pytest.raises(ValueError, match=r"expected depth <= env.steps - 1 = 9, got 10"):
        branching.support(10)


def test_a_fixed_window_that_would_reach_the_last_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"start \+ depth <= env.steps - 1 = 9, got 7 \+ 3"):
        Fixed(1, 3, 7).distribution(10, 0)


@pytest.mark.parametrize(
    ("children", "sampled"), [((2, 1), (False, False)), ((0, 1), (True, False))]
)
def test_a_split_needs_a_sampled_step(children: tuple[int, ...], sampled: tuple[bool, ...]) -> None:
    with pytest.raises(ValueError, match="step 0"):
        TreeSpec(children, sampled)
