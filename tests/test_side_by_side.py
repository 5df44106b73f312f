"""Several rewards behind servers are asked side by side."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from treerl.engine.task import Samples
from treerl.errors import RewardError, Stopped
from treerl.reward.contract import Reward
from treerl.reward.remote import Remote
from treerl.reward.rewards import Rewards

SAMPLES = Samples.of(torch.rand(3, 3, 4, 4), ["a cat", "a dog", "a fox"])


class Far(Remote):
    """A server's reward without the server."""

    def __init__(self, answer: Callable[[Samples], Tensor]) -> None:
        self.answer = answer
        self.asked = 0
        self.modality = "images"
        self._coming = None

    def _scored(self, samples: Samples) -> Tensor:
        self.asked += 1
        return self.answer(samples)


def ones(samples: Samples) -> Tensor:
    return torch.ones(len(samples))


def test_all_are_asked_before_the_first_answer_is_waited_for() -> None:
    meeting = threading.Barrier(3, timeout=30)  # broken if one is asked after another

    class Here(Reward):
        def __call__(self, samples: Samples) -> Tensor:
            meeting.wait()
            return 3 * ones(samples)

    def meet(factor: float) -> Callable[[Samples], Tensor]:
        def answer(samples: Samples) -> Tensor:
            meeting.wait()
            return factor * ones(samples)

        return answer

    rewards = Rewards({"here": Here(), "far": Far(meet(1.0)), "farther": Far(meet(2.0))})
    assert rewards(SAMPLES).tolist() == [[3, 1, 2]] * 3


def test_one_reward_alone_is_asked_in_the_thread_that_waits() -> None:
    threads = []

    def answer(samples: Samples) -> Tensor:
        threads.append(threading.current_thread())
        return ones(samples)

    far = Far(answer)
    assert Rewards({"far": far})(SAMPLES).tolist() == [[1]] * 3
    assert threads == [threading.main_thread()] and far.asked == 1


def test_each_is_asked_once_and_anew_for_other_samples() -> None:
    pair = {"one": Far(ones), "two": Far(ones)}
    rewards = Rewards(pair)
    for count in (1, 2):
        rewards(SAMPLES)
        assert [far.asked for far in pair.values()] == [count, count]
    pair["one"].begin(SAMPLES)
    other = SAMPLES.take(torch.tensor([1]))
    assert pair["one"](other).tolist() == [1]  # not the answer that was begun


def test_an_error_is_raised_where_it_is_waited_for() -> None:
    def fails(samples: Samples) -> Tensor:
        raise RewardError("reward two: refused (500)")

    with pytest.raises(RewardError, match=r"^reward two: refused \(500\)$"):
        Rewards({"one": Far(ones), "two": Far(fails)})(SAMPLES)


def test_what_failed_when_it_was_begun_is_tried_again() -> None:
    failures = [RewardError("reward two: refused (500)")]

    def once(samples: Samples) -> Tensor:
        if failures:
            raise failures.pop()
        return ones(samples)

    rewards = Rewards({"one": Far(ones), "two": Far(once)}, on_bad_reward="retry", retries=1)
    assert rewards(SAMPLES).tolist() == [[1, 1]] * 3


def test_a_user_who_wants_to_stop_is_heard_while_an_answer_is_waited_for() -> None:
    never = threading.Event()
    asked = threading.Event()

    def hangs(samples: Samples) -> Tensor:
        asked.set()
        never.wait(60)
        return ones(samples)

    def check() -> None:
        if asked.is_set():
            raise Stopped(2)

    try:
        with pytest.raises(Stopped):
            Rewards({"one": Far(hangs), "two": Far(hangs)}, check_interrupt=check)(SAMPLES)
    finally:
        never.set()


def test_a_reward_that_cannot_begin_is_told_by_its_call() -> None:
    class Stubborn(Reward):
        def begin(self, samples: Samples) -> None:
            raise ValueError("not yet")

        def __call__(self, samples: Samples) -> Tensor:
            return ones(samples)

    assert Rewards({"one": Stubborn(), "two": Far(ones)})(SAMPLES).tolist() == [[1, 1]] * 3
