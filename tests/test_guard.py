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
        "clip_fraction": 0.1,
        "zero_advantages": 0.2,
        "sibling_std": 0.05,
        "variance_by_step": {"-1": 0.01, "1": 0.02},
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip_fraction": 0.95}, "edges were clipped"),
        ({"zero_advantages": 0.95}, "advantages were 0"),
        ({"sibling_std": 1e-5}, "siblings hardly differed"),
        ({"grad_norm": 0.0}, "the gradient was 0"),
    ],
)
def test_what_lasts_is_said_once_and_again_when_it_has_passed(
    changes: dict[str, float], said: str
) -> None:
    wrong = [row(0.5, **changes)] * (SPAN + 3)
    fine = [row(0.5)] * 2
    ((first, one), (second, other)) = watch([*fine, *wrong, *fine, *wrong])
    assert (first, second) == (2 + SPAN, 4 + SPAN + 3 + SPAN)
    assert said in one.text and one.text == other.text and not one.serious
    assert watch([*wrong[: SPAN - 1], *fine] * 3) == []


def test_trees_that_do_not_split_have_no_siblings_to_be_alike() -> None:
    chains = row(0.5, sibling_std=0.0, variance_by_step={"-1": 0.1})
    assert watch([chains] * 10) == []


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
