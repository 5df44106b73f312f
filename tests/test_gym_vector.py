"""The vector form: row by row the single environment, in one forward a step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from oracle import Linear, schedule
from plain import SUM

from treerl.engine.kernel import FlowSDE
from treerl.engine.policy import Gaussian
from treerl.engine.tree import State
from treerl.errors import InputError
from treerl.gym.env import DenoisingEnv
from treerl.gym.process import Snapshot
from treerl.gym.vector import VectorDenoisingEnv

SHAPE = (4,)
ROWS = 3
STEPS = 5
SOME = [1, STEPS - 1]  # deterministic steps, one of them in between


class Linears(Linear):
    """The oracle, that notes how many rows each forward has."""

    def __init__(self) -> None:
        theta = torch.tensor([[0.0] * STEPS, [1.0] * STEPS], dtype=torch.float64)
        super().__init__(FlowSDE(), schedule(STEPS), theta, shape=SHAPE, latent_dtype=torch.float32)
        self.batches: list[int] = []

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        self.batches.append(len(state.step))
        return super().policy(state, stochastic)


def single() -> DenoisingEnv:
    return DenoisingEnv(Linears().with_tasks(("a cat", "a dog")), SUM, SOME)


def vector(rows: int = ROWS, deterministic: Iterable[int] = SOME) -> VectorDenoisingEnv:
    return VectorDenoisingEnv(Linears().with_tasks(("a cat", "a dog")), SUM, rows, deterministic)


def batches(envs: VectorDenoisingEnv) -> list[int]:
    env = envs._process.env
    assert isinstance(env, Linears)
    return env.batches


def same(one: Any, other: Any) -> bool:
    """Whether two observations or infos are equal, arrays and mappings all the way down."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return np.array_equal(one, other) and np.asarray(one).dtype == np.asarray(other).dtype


def noises(count: int, rows: int = ROWS) -> NDArray[np.float32]:
    """Actions `[count, rows, *SHAPE]`."""
    return np.random.default_rng(7).standard_normal((count, rows, *SHAPE)).astype(np.float32)


def test_every_row_is_the_single_environment_through_three_episodes() -> None:
    ours, theirs = vector(), SyncVectorEnv([single] * ROWS)
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    for name in ("observation_space", "action_space", "single_observation_space", "num_envs"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert same(ours.reset(seed=11)[0], theirs.reset(seed=11)[0])
    ends = 0
    for actions in noises(3 * (STEPS + 1)):
        mine, yours = ours.step(actions), theirs.step(actions)
        assert all(same(one, other) for one, other in zip(mine, yours, strict=True))
        assert mine[0] in ours.observation_space
        ends += int(mine[2].all())
    assert ends == 3


def test_a_reset_takes_seeds_and_tasks_of_the_rows() -> None:
    ours, theirs = vector(), SyncVectorEnv([single] * ROWS)
    seeds: list[int | list[int | None] | None] = [[3, 1, 2], 5, None, [None, 4, None]]
    for seed in seeds:
        assert same(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
    seen = ours.reset(seed=0, options={"task": [1, 0, 1]})[0]
    assert seen["task"].tolist() == [1, 0, 1]
    assert ours.reset(seed=0, options={"task": 1})[0]["task"].tolist() == [1] * ROWS


def test_a_step_is_one_forward_of_all_rows() -> None:
    envs = vector()
    envs.reset(seed=0)
    for actions in noises(STEPS + 2):
        envs.step(actions)
    assert batches(envs) == [ROWS] * (STEPS + 1)  # and none at the step that begins anew


def test_rows_go_on_from_the_chosen_ones() -> None:
    envs = vector()
    envs.reset(seed=0)
    first, *rest = noises(STEPS)
    before = envs.step(first)[0]
    seen = envs.branch([2, 0, 2])
    for name, rows in before.items():
        assert np.array_equal(seen[name], rows[[2, 0, 2]])
    for actions in rest:
        alike = actions[[0, 1, 0]]
        seen, rewards, *_ = envs.step(alike)
    assert np.array_equal(seen["latent"][0], seen["latent"][2]) and rewards[0] == rewards[2]
    assert rewards[0] != rewards[1]


def test_a_restored_moment_repeats() -> None:
    envs = vector()
    envs.reset(seed=0)
    first, *rest = noises(STEPS)
    envs.step(first)
    here = envs.snapshot()
    ends = []
    for _ in range(2):
        envs.restore(here)
        ends.append([envs.step(actions)[1].tolist() for actions in rest][-1])
    assert ends[0] == ends[1] and all(ends[0])


def test_rows_at_different_steps_each_do_what_theirs_asks() -> None:
    # row 0 is over, row 1 at a deterministic step, row 2 about to end, row 3 at a sampled step
    at = [STEPS, 1, STEPS - 1, 2]
    x = torch.from_numpy(noises(1, 4)[0])
    state = State(x, torch.tensor(at), torch.tensor([0, 1, 0, 1]))
    envs = vector(rows=4)
    envs.reset(seed=0)
    envs.restore(Snapshot(state))
    actions = noises(2, 4)[1]
    seen, rewards, over, _, infos = envs.step(actions)
    assert seen["step"].tolist() == [0, 2, STEPS, 3] and over.tolist() == [
        False,
        False,
        True,
        False,
    ]
    assert infos["_log_prob"].tolist() == [False, False, False, True]
    alone = single()
    for row in (1, 2, 3):
        alone.reset(seed=0)
        alone.restore(Snapshot(state.take(torch.tensor([row]))))
        observation, reward, _, _, info = alone.step(actions[row])
        assert np.array_equal(observation["latent"], seen["latent"][row])
        assert reward == rewards[row]
        assert info.get("log_prob", 0.0) == infos["log_prob"][row]


def test_how_an_ended_row_begins_anew_is_declared() -> None:
    assert vector().metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_closing_ends_the_rewards_once() -> None:
    closed: list[int] = []
    env = Linears().with_tasks(("a cat",))
    envs = VectorDenoisingEnv(env, SUM, 2, on_close=lambda: closed.append(1))
    envs.close()
    envs.close()
    assert closed == [1]


def test_it_says_when_a_reset_is_needed() -> None:
    with pytest.raises(ResetNeeded):
        vector().step(noises(1)[0])


def branched(rows: Sequence[int]) -> object:
    envs = vector()
    envs.reset(seed=0)
    return envs.branch(rows)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: vector(rows=0), "num_envs: expected an integer >= 1, got 0"),
        (lambda: branched([0, 1]), "branch: expected 3 rows below 3, got [0, 1]"),
        (lambda: branched([0, 1, 3]), "branch: expected 3 rows below 3, got [0, 1, 3]"),
        (lambda: branched([0, 1, -1]), "branch: expected 3 rows below 3, got [0, 1, -1]"),
        (
            lambda: vector().reset(seed=[1, 2]),
            "seed: expected one for each of 3 rows, got 2",
        ),
        (
            lambda: vector().reset(options={"task": [0]}),
            "options.task: expected one for each of 3 rows, got 1",
        ),
    ],
    ids=["num_envs", "few", "beyond", "negative", "seeds", "tasks"],
)
def test_a_mistake_is_one_line(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as error:
        wrong()
    assert str(error.value) == message
