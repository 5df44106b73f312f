"""Rewards that fail in what they do beside scoring: their measures, and when they are closed."""

from contextlib import closing
from dataclasses import dataclass

import pytest
from test_rewards import SAMPLES, Flaky, Measuring, red
from torch import Tensor

from treerl.engine.task import Samples
from treerl.errors import RewardError, printable
from treerl.reward.contract import Reward
from treerl.reward.rewards import OnBadReward, Rewards


def test_failing_measures_are_asked_for_again_and_then_left_out() -> None:
    policies: list[tuple[OnBadReward, int]] = [("stop", 1), ("retry", 3)]
    for policy, times in policies:
        with pytest.raises(RewardError, match="reward m: ConnectionError: busy"):
            Rewards({"m": FlakyFigures(times)}, {}, policy, 2).measures(SAMPLES)
    for policy in ("retry", "drop_tree"):
        assert list(Rewards({"m": FlakyFigures(2)}, {}, policy, 2).measures(SAMPLES)) == ["n"]
    both = Rewards({"m": FlakyFigures(9), "b": Measuring()}, {}, "drop_tree", 2)
    assert list(both.measures(SAMPLES)) == ["right", "odd"]


@dataclass
class FlakyFigures(Flaky):
    """Fails the first `left` times that its figures are asked for."""

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        return {"n": self(samples)}


@dataclass
class Clinging(Reward):
    """Fails when it is closed."""

    error: BaseException
    closed: int = 0

    def __call__(self, samples: Samples) -> Tensor:
        return red(samples)

    def close(self) -> None:
        self.closed += 1
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no\x1b"), SystemExit(0), GeneratorExit()])
def test_a_reward_that_fails_when_closed_is_named_after_all_are_closed(
    error: BaseException,
) -> None:
    first = Clinging(error)
    last = Clinging(error)
    rewards = Rewards({"first": first, "last": last})
    with pytest.raises(RewardError, match=r"^reward first: close: ") as caught:
        rewards.close()
    assert str(caught.value).isprintable()
    with pytest.raises(KeyError, match="graver"), closing(rewards):
        raise KeyError("graver")
    assert first.closed == last.closed == 2


def test_text_from_outside_stays_on_one_printable_line() -> None:
    class Mute:
        def __str__(self) -> str:
            raise ValueError

    assert printable("a\nb\tc  d") == "a b c d"
    assert printable("\x1b[31mred\x00\u202e") == "\\x1b[31mred\\x00\\u202e"
    assert printable("x" * 1000, 10) == "xxxxxxx..."
    assert printable(Mute()) == "(a Mute without a text)"
