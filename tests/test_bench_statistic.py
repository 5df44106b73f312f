"""Interquartile means, their intervals, and costs to reach a level: by hand, and as rliable."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from treerl.bench.statistic import cost_to_reach, estimate, iqm, isotonic, of

# np.random.RandomState(0).rand(5, 1), then .rand(10, 3) and .rand(3, 1), to four digits
FIVE = [[0.5488], [0.7152], [0.6028], [0.5449], [0.4237]]
TEN_BY_THREE = [
    [0.6459, 0.4376, 0.8918],
    [0.9637, 0.3834, 0.7917],
    [0.5289, 0.5680, 0.9256],
    [0.0710, 0.0871, 0.0202],
    [0.8326, 0.7782, 0.8700],
    [0.9786, 0.7992, 0.4615],
    [0.7805, 0.1183, 0.6399],
    [0.1434, 0.9447, 0.5218],
    [0.4147, 0.2646, 0.7742],
    [0.4562, 0.5684, 0.0188],
]
THREE = [[0.6176], [0.6121], [0.6169]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.3], 0.3),
        ([1.0, 2.0, 6.0], 3.0),  # a quarter of three, rounded down, is none
        ([10.0, 1.0, 2.0, -9.0], 1.5),
        ([5.0, 1.0, 2.0, 3.0, 100.0], 10.0 / 3),
        ([0, 0, 1, 2, 3, 4, 99, 99], 2.5),
    ],
    ids=["one", "three", "four", "five", "eight"],
)
def test_the_iqm_is_the_mean_of_the_middle_half(values: list[float], expected: float) -> None:
    assert iqm(np.array(values)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("scores", "value", "low", "high"),
    [
        (FIVE, 0.56549, 0.46406, 0.67771),
        (TEN_BY_THREE, 0.59689, 0.43812, 0.71825),
        (THREE, 0.61556, 0.61210, 0.61764),
    ],
    ids=["five", "three tasks", "three"],
)
def test_intervals_are_those_of_rliable(
    scores: list[list[float]], value: float, low: float, high: float
) -> None:
    """rliable 1.2.0, get_interval_estimates with 50,000 resamples (arch 7.2.0, pandas 2.3)."""
    ours = estimate(np.array(scores), repeats=50_000)
    assert ours.value == pytest.approx(value, abs=1e-4)
    assert ours.low == pytest.approx(low, abs=6e-3)
    assert ours.high == pytest.approx(high, abs=6e-3)


def test_runs_are_drawn_within_their_task() -> None:
    """Tasks that differ, runs that don't: nothing is uncertain. Across tasks it would be."""
    scores = np.tile([0.0, 0.5, 1.0, 9.0], (5, 1))
    ours = estimate(scores)
    assert (ours.low, ours.high) == (ours.value, ours.value) == (0.75, 0.75)


def test_the_same_scores_give_the_same_interval() -> None:
    assert of([0.1, 0.5, 0.2]) == of([0.1, 0.5, 0.2])
    assert of([]) is None


def test_an_interval_is_clear_of_zero_with_enough_runs_alone() -> None:
    clear = of([0.1, 0.2, 0.3, 0.1, 0.2])
    few = of([0.1, 0.2])
    both = of([0.1, -0.2, 0.3, 0.1, -0.2])
    assert clear is not None and few is not None and both is not None
    assert (clear.clear, few.clear, both.clear) == (True, False, False)


def test_the_isotonic_fit_pools_what_falls() -> None:
    assert isotonic([1, 3, 2, 4]) == [1, 2.5, 2.5, 4]
    assert isotonic([3, 2, 1]) == [2, 2, 2]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_the_isotonic_fit_never_falls_keeps_the_mean_and_is_its_own_fit(
    values: list[float],
) -> None:
    fit = isotonic(values)
    assert all(low <= high + 1e-12 for low, high in pairwise(fit))
    assert np.mean(fit) == pytest.approx(np.mean(values), abs=1e-9)
    assert isotonic(fit) == pytest.approx(fit, abs=1e-9)


def test_a_cost_to_reach_is_linear_between_marks() -> None:
    costs = [0, 100, 200]
    assert cost_to_reach(0.75, costs, [0.5, 0.7, 0.9]) == pytest.approx(125)
    assert cost_to_reach(0.9, costs, [0.5, 0.7, 0.9]) == 200
    assert cost_to_reach(0.5, costs, [0.5, 0.7, 0.9]) == 0
    assert cost_to_reach(0.91, costs, [0.5, 0.7, 0.9]) is None


def test_a_lucky_mark_does_not_reach() -> None:
    assert cost_to_reach(0.85, [0, 100, 200], [0.5, 0.9, 0.7]) is None
