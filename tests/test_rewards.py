"""The value that owns all rewards: names, weights, checks, retries, measures, the user's stop."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from misbehaving import FILE, Resetting
from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.errors import InputError, RewardError, Stopped
from treerl.reward.build import Scoring, build_rewards
from treerl.reward.contract import Reward
from treerl.reward.rewards import OnBadReward, Rewards
from treerl.run.signals import interruptible

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SAMPLES = Samples.of(IMAGES, ["good", "bad", "none"])


def red(samples: Samples) -> Tensor:
    return samples.images[:, 0].mean((1, 2))


def count(samples: Samples) -> Tensor:
    return torch.arange(len(samples))


def test_names_weights_and_the_total_belong_together() -> None:
    rewards = Rewards({"red": red, "count": count}, {"count": -0.5})
    scores = rewards(SAMPLES)
    assert rewards.names == ("red", "count") and rewards.weights.tolist() == [1.0, -0.5]
    assert scores.shape == (3, 2) and scores.dtype == torch.float64
    expected = red(SAMPLES).double() - 0.5 * torch.arange(3)
    torch.testing.assert_close(rewards.total(scores), expected)
    with pytest.raises(InputError, match="a weight of 'blue', which is none of the rewards"):
        Rewards({"red": red}, {"blue": 1.0})
    assert Rewards({})(SAMPLES).shape == (3, 0)


@dataclass
class Flaky(Reward):
    """Fails the first `left` calls."""

    left: int

    def __call__(self, samples: Samples) -> Tensor:
        self.left -= 1
        if self.left >= 0:
            raise ConnectionError("busy")
        return count(samples).float()


def test_retry_asks_again_and_then_stops() -> None:
    again = Rewards({"m": Flaky(2)}, {}, "retry", 2)
    assert again(SAMPLES).flatten().tolist() == [0, 1, 2]
    policies: list[tuple[OnBadReward, int]] = [("retry", 3), ("stop", 1)]
    for policy, times in policies:
        with pytest.raises(RewardError, match="busy"):
            Rewards({"m": Flaky(times)}, {}, policy, 2)(SAMPLES)


def picky(samples: Samples) -> Tensor:
    """Breaks the whole call when the second sample is in it, and has no number for the third."""
    if "bad" in samples.prompts:
        raise ValueError("bad image")
    return torch.tensor([float("inf") if prompt == "none" else 1.0 for prompt in samples.prompts])


def test_drop_tree_keeps_the_scores_of_the_others() -> None:
    scores = Rewards({"m": picky, "red": red}, {}, "drop_tree", 0)(SAMPLES)
    np.testing.assert_array_equal(scores[:, 0].numpy(), [1.0, np.nan, np.nan])
    torch.testing.assert_close(scores[:, 1], red(SAMPLES).double())


class Measuring(Reward):
    """Has figures, some of them missing."""

    def __call__(self, samples: Samples) -> Tensor:
        return red(samples)

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        return {
            "right": torch.tensor([True, False, True]),
            "odd": torch.tensor([1.0, np.nan, np.inf]),
        }


def test_a_measure_without_a_number_is_missing_and_no_error() -> None:
    figures = Rewards({"a": Measuring(), "plain": red, "b": Measuring()}).measures(SAMPLES)
    assert list(figures) == ["right", "odd", "b.right", "b.odd"]
    assert figures["right"].tolist() == [1, 0, 1] and figures["right"].dtype == torch.float64
    np.testing.assert_array_equal(figures["odd"].numpy(), [1, np.nan, np.nan])


@pytest.mark.parametrize(
    ("figures", "match"),
    [
        ({"x": torch.zeros(2)}, r"reward m: measure x: expected shape \(3,\), got \(2,\)"),
        ({"x": 1.0}, r"reward m: measure x: expected a tensor \[3\], got float"),
        ({"x": torch.zeros(3).to("meta")}, "reward m: measure x: expected a plain tensor"),
        ({"x\x1b": torch.zeros(3)}, r"reward m: measures: expected short names, got 'x\\x1b'"),
        ([1], "reward m: measures: expected a mapping by name, got list"),
    ],
)
def test_a_malformed_measure_is_named(figures: dict[str, Tensor], match: str) -> None:
    reward = Measuring()
    reward.measures = lambda samples: figures  # type: ignore[method-assign]
    with pytest.raises(RewardError, match=match):
        Rewards({"m": reward}).measures(SAMPLES)


class Wary(Reward):
    """Refuses one prompt, and breaks at another."""

    def __call__(self, samples: Samples) -> Tensor:
        return red(samples)

    def validate_tasks(self, tasks: object) -> None:
        for task in tasks:  # type: ignore[attr-defined]
            if task.prompt == "refused":
                raise InputError("prompt 'refused' has no\x1b colour")
            if task.prompt == "broken":
                raise KeyError("colour")


def test_tasks_are_validated_by_every_reward_that_can() -> None:
    rewards = Rewards({"red": red, "wary": Wary()})
    rewards.validate_tasks(["fine", Task("good")])
    with pytest.raises(InputError, match=r"^rewards.wary: prompt 'refused' has no\\x1b colour$"):
        rewards.validate_tasks(["fine", "refused"])
    with pytest.raises(RewardError, match=r"^reward wary: KeyError: 'colour'"):
        rewards.validate_tasks(["broken"])


def test_a_stop_of_the_users_is_not_the_fault_of_the_reward() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):

        def stopped(samples: Samples, number: int = number) -> Tensor:
            os.kill(os.getpid(), number)
            return red(samples)

        with interruptible() as stop:
            rewards = Rewards({"red": stopped}, check_interrupt=stop.check)
            with pytest.raises(Stopped) as caught:
                rewards(SAMPLES)
            assert caught.value.code == 128 + number
            assert signal.getsignal(number) == stop.handle  # nobody has changed it


def test_a_reward_that_hangs_is_left_at_a_signal() -> None:
    def hangs(samples: Samples) -> Tensor:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        time.sleep(60)
        return red(samples)

    began = time.monotonic()
    with interruptible() as stop, pytest.raises(Stopped):
        Rewards({"m": hangs}, check_interrupt=stop.check)(SAMPLES)
    assert time.monotonic() - began < 30


def test_a_reward_that_takes_the_handlers_away_is_blamed_and_they_are_put_back() -> None:
    with interruptible() as stop:
        rewards = Rewards({"m": Resetting()}, check_interrupt=stop.check)
        with pytest.raises(RewardError, match=r"^reward m: it changed the signal handlers"):
            rewards(SAMPLES)
        assert signal.getsignal(signal.SIGTERM) == stop.handle


def test_an_interrupt_of_its_own_is_blamed_and_that_of_the_user_outside_a_run_is_not() -> None:
    def interrupts(samples: Samples) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Rewards({"m": interrupts})(SAMPLES)
    with interruptible() as stop, pytest.raises(RewardError, match=r"^reward m: KeyboardInterrupt"):
        Rewards({"m": interrupts}, check_interrupt=stop.check)(SAMPLES)


def test_a_stop_ends_the_wait_for_a_worker_within_a_second() -> None:
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Stopped(signal.SIGTERM)

    rewards = build_rewards({f"{FILE}:Misbehaving": 1.0}, Scoring("worker", 60.0), "images", check)
    try:
        threading.Timer(0.5, stop.set).start()
        began = time.monotonic()
        with pytest.raises(Stopped):
            rewards(Samples.of(IMAGES, ["hangs", "b", "c"]))
        assert time.monotonic() - began < 1.5
        with pytest.raises(Stopped):  # while a worker is started, too
            build_rewards({f"{FILE}:Misbehaving": 1.0}, Scoring("worker", 60.0), "images", check)
    finally:
        rewards.close()


@pytest.mark.slow
def test_the_worker_of_a_reward_ends_when_a_later_reward_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, pathlib\n"
        "from treerl.reward.contract import Reward\n\n\n"
        "class Noting(Reward):\n"
        "    def __init__(self):\n"
        f"        pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n\n"
        "    def __call__(self, samples):\n        return samples.group\n"
    )
    with pytest.raises(InputError, match="unknown name 'nothing'"):
        build_rewards({f"{tmp_path}/mine.py:Noting": 1.0, "nothing": 1.0}, Scoring("worker"))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_errors_in_a_rewards_own_words_are_one_printable_line() -> None:
    def says(samples: Samples) -> Tensor:
        raise RewardError("first\nsecond \x1b[31m")

    with pytest.raises(RewardError, match=r"^first second \\x1b\[31m$"):
        Rewards({"m": says})(SAMPLES)


def test_a_working_directory_that_is_deleted_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")

    def deletes(samples: Samples) -> Tensor:
        (tmp_path / "gone").rmdir()
        return red(samples)

    with pytest.raises(RewardError, match=r"^reward m: it changed the working directory"):
        Rewards({"m": deletes})(SAMPLES)
    assert Rewards({"m": red})(SAMPLES).shape == (3, 1)
