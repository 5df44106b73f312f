"""A run that cannot be right says so while it happens."""

from typing import Any

import pytest

from treerl.run.guard import SPAN, Guard, Trouble


def row(reward: float, **changes: Any) -> dict[str, Any]:
    figures = {
        "reward": reward,
        "reward_std": 0.1,
        "zero_std_prompts": 0,
        "grad_norm": 1.0,
        "reward_shares": {"shapes": 1.0},
    }
    return {**figures, **changes}


def watch(rows: list[dict[str, Any]], prompts: int = 8) -> list[tuple[int, Trouble]]:
    """What the guard says, with the iteration in which it says it."""
    guard = Guard()
    said = []
    for number, figures in enumerate(rows, start=1):
        said += [(number, trouble) for trouble in guard.look(figures, prompts)]
    return said


def test_a_run_that_learns_with_noise_is_left_alone() -> None:
    rewards = [0.5 + 0.006 * n + 0.08 * (-1) ** n for n in range(75)]
    assert watch([row(reward) for reward in rewards]) == []


def test_a_reward_that_never_varies_is_named_once_and_is_serious() -> None:
    ((iteration, trouble),) = watch([row(0.5, zero_std_prompts=8, reward_std=0.0)] * 40)
    assert iteration == SPAN and trouble.serious and "nothing is learned" in trouble.text


def test_a_few_prompts_without_spread_are_no_trouble() -> None:
    assert watch([row(0.5, zero_std_prompts=7)] * 40) == []


def test_a_model_that_is_destroyed_is_named_and_is_serious() -> None:
    rewards = [0.9] * 12 + [0.5, 0.1] + [0.0] * 10
    ((iteration, trouble),) = watch([row(reward) for reward in rewards])
    assert 13 <= iteration <= 20 and trouble.serious and "learning_rate" in trouble.text


@pytest.mark.parametrize("early", [1, 3, 6, 9])
def test_a_model_that_is_destroyed_early_is_named_too(early: int) -> None:
    rewards = [0.9] * early + [0.0] * 12
    assert any(trouble.serious for _, trouble in watch([row(reward) for reward in rewards]))


def test_a_fall_is_one_from_the_best_that_was_reached() -> None:
    """Back at the beginning all that was learned is lost, though nothing is below the start."""
    climb = [0.1] * 5 + [0.5] * 5 + [0.9] * 10
    rewards = [*climb, *[0.12] * 10]
    ((iteration, trouble),) = watch([row(reward) for reward in rewards])
    assert 21 <= iteration <= 26 and trouble.serious and "fell from 0.9" in trouble.text


def test_a_fall_that_the_noise_of_a_few_iterations_explains_is_none() -> None:
    # from one lucky start; the spread within a prompt is small, that between iterations is not
    rewards = [0.9] + [0.4 + 0.45 * (-1) ** n for n in range(40)]
    assert watch([row(reward) for reward in rewards]) == []


def test_a_spike_of_the_gradient_is_said_and_is_not_serious() -> None:
    rows = [row(0.5)] * 10 + [row(0.5, grad_norm=50.0)] + [row(0.5)] * 10
    ((iteration, trouble),) = watch(rows)
    assert iteration == 11 and not trouble.serious and "50 times" in trouble.text


def test_a_reward_that_drowns_the_others_is_named_in_the_first_iteration() -> None:
    shares = {"shapes": 0.97, "jpeg": 0.03}
    ((iteration, trouble),) = watch([row(0.5, reward_shares=shares)] * 5)
    assert iteration == 1 and "shapes makes 97.0%" in trouble.text and not trouble.serious


def test_what_passed_and_comes_again_is_said_again() -> None:
    flat = [row(0.5, zero_std_prompts=8)] * SPAN
    assert len(watch([*flat, row(0.5), *flat])) == 2
