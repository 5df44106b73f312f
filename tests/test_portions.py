"""Samples are made and scored a few tasks at a time, and the scores are what they were."""

import pytest
import torch
from oracle import Neural, schedule
from plain import SUM, roots
from torch import Tensor

from treerl.engine.branching import window
from treerl.engine.grow import grow
from treerl.engine.kernel import FlowSDE
from treerl.engine.peers import Alone
from treerl.engine.scoring import HELD, decoded, portions, score
from treerl.engine.task import Samples
from treerl.engine.tree import State
from treerl.errors import NumericsError, RewardError
from treerl.reward.rewards import Rewards
from treerl.run.evaluate import evaluate


class Large(Neural):
    """A flow whose samples are said to be large."""

    each = HELD // 20
    called: list[int]  # samples that each call made

    @property
    def sample_bytes(self) -> int:
        return self.each

    def samples(self, state: State) -> Samples:
        self.called.append(len(state.x))
        return super().samples(state)


def large(tasks: int) -> Large:
    env = Large(FlowSDE(0.7), schedule(6, 3), (2,), torch.float64)
    env.tasks = tuple(range(tasks))
    env.called = []
    return env


def test_whole_tasks_are_scored_together_as_many_as_memory_holds() -> None:
    task = torch.tensor([0] * 9 + [1] * 9 + [2] * 9 + [3] * 3)
    assert [len(part) for part in portions(task, 0)] == [30]
    assert [len(part) for part in portions(task, HELD // 30)] == [30]
    assert [part.tolist() for part in portions(task, HELD // 20)] == [
        list(range(18)),
        list(range(18, 30)),
    ]
    assert [len(part) for part in portions(task, HELD)] == [9, 9, 9, 3]


def test_tasks_whose_leaves_lie_apart_stay_whole() -> None:
    task = torch.tensor([0, 1, 0, 1, 2])
    assert [part.tolist() for part in portions(task, HELD // 2)] == [[0, 2], [1, 3], [4]]


@pytest.mark.parametrize("previews", [False, True])
def test_the_scores_are_those_of_all_samples_at_once(previews: bool) -> None:
    spec = window(6, 1, 2, 3)
    env = large(7)
    tree = grow(env, roots(7), spec, 8, previews=previews)
    _, scores, dropped = score(env, tree, SUM, Alone())
    assert dropped == 0 and max(env.called) <= 20 and len(env.called) >= 4
    env.each = 0
    _, whole, _ = score(env, tree, SUM, Alone())
    assert torch.equal(scores.nan_to_num(-9), whole.nan_to_num(-9))
    assert int((~whole.isnan()).sum()) == 7 * (9 + (spec.previews if previews else 0))


def test_a_reward_sees_all_samples_of_a_task_together() -> None:
    seen: list[tuple[int, ...]] = []

    class Comparing:
        names = ("comparing",)
        weights = torch.ones(1, dtype=torch.float64)

        def __call__(self, samples: Samples) -> Tensor:
            seen.append(tuple(torch.bincount(samples.group, minlength=7).tolist()))
            return torch.zeros(len(samples), 1, dtype=torch.float64)

    env = large(7)
    score(env, grow(env, roots(7), window(6, 1, 2, 3), 8), Comparing(), Alone())
    assert len(seen) > 1 and {count for row in seen for count in row} == {0, 9}


def test_no_more_than_two_portions_are_held() -> None:
    env = large(6)
    env.each = HELD  # a task at a time
    tree = grow(env, roots(6), window(6, 1, 1, 2), 8)
    begun = 0
    for number, _ in enumerate(decoded(env, tree.at(tree.leaves))):
        begun = len(env.called)
        assert begun <= number + 2
    assert begun == 6


@pytest.mark.parametrize("where", ["making", "scoring"])
def test_an_error_of_either_side_ends_both(where: str) -> None:
    class Broken(Large):
        def samples(self, state: State) -> Samples:
            if where == "making" and int(state.task[0]) == 2:
                raise NumericsError("decode: sample 4 is not finite")
            return super().samples(state)

    class Failing:
        names = ("failing",)
        weights = torch.ones(1, dtype=torch.float64)

        def __call__(self, samples: Samples) -> Tensor:
            if where == "scoring" and int(samples.group[0]) == 2:
                raise RewardError("reward failing: no")
            return torch.zeros(len(samples), 1, dtype=torch.float64)

    env = Broken(FlowSDE(0.7), schedule(6, 3), (2,), torch.float64)
    env.tasks = tuple(range(6))
    env.each = HELD
    env.called = []
    tree = grow(env, roots(6), window(6, 1, 1, 2), 8)
    error = NumericsError if where == "making" else RewardError
    with pytest.raises(error):
        score(env, tree, Failing(), Alone())


def test_an_evaluation_of_large_samples_keeps_those_that_are_shown() -> None:
    rewards = Rewards({"sum": lambda samples: samples.images.double().flatten(1).sum(1)})
    env = large(0)
    env.each = HELD // 8
    found = evaluate(env, rewards, list(range(30)), samples_per_task=3)
    env.each = 0
    whole = evaluate(env, rewards, list(range(30)), samples_per_task=3)
    assert torch.equal(found.total, whole.total) and len(whole.samples) == 90
    assert whole.rows is None and found.rows is not None
    assert found.rows.tolist() == [3 * task for task in range(24)]
    assert torch.equal(found.samples.images, whole.samples.images[found.rows])
    assert [found.row(place) for place in (0, 5)] == [0, 15]
