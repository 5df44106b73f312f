"""Branches of one Gymnasium environment, what it refuses, and who ends the rewards."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray
from oracle import Linear, schedule
from plain import SUM

from treerl.engine.kernel import FlowSDE
from treerl.engine.task import Samples
from treerl.errors import InputError
from treerl.gym.env import DenoisingEnv
from treerl.gym.process import Noise

SHAPE = (4,)
DRAWS = np.random.default_rng(0).standard_normal((8, *SHAPE)).astype(np.float32)


class Drawn(Linear):
    """The linear flow with samples that are images of one pixel, red as the first dimension."""

    def samples(self, state: object) -> Samples:
        samples = super().samples(state)  # type: ignore[arg-type]
        pixels = samples.images[:, :3].sigmoid().view(-1, 3, 1, 1)
        return Samples(pixels, samples.tasks, samples.group)


def make(
    deterministic: Iterable[int] | None = None,
    render_mode: str | None = None,
    on_close: Callable[[], None] | None = None,
    family: type[Linear] = Linear,
) -> DenoisingEnv:
    theta = torch.zeros(6, dtype=torch.float64)
    world = family(FlowSDE(), schedule(6), theta, shape=SHAPE, latent_dtype=torch.float32)
    env = world.with_tasks(("a cat", "a dog"))
    return DenoisingEnv(env, SUM, deterministic, render_mode, on_close or (lambda: None))


def finish(env: DenoisingEnv, first: int) -> float:
    """The reward at the end, after the draw `first` and the same ones for all."""
    results = [env.step(DRAWS[row]) for row in (first, 3, 4, 5, 6)]
    assert results[-1][2]
    return results[-1][1]


def test_branches_go_their_own_ways_from_one_moment() -> None:
    env = make()
    env.reset(seed=0)
    env.step(DRAWS[0])
    here = env.snapshot()
    branches = env.branch(3)
    payments = [finish(branch, first) for first, branch in enumerate(branches)]
    assert len(set(payments)) == 3
    for first, payment in enumerate(payments):
        env.restore(here)
        assert finish(env, first) == payment


def test_a_step_of_a_branch_moves_no_other() -> None:
    env = make()
    env.reset(seed=0)
    before = env.step(DRAWS[0])[0]["latent"]
    left, right = env.branch(2)
    left.step(DRAWS[1])
    for other in (env, right):
        assert np.array_equal(other.restore(other.snapshot())["latent"], before)


def test_branches_share_the_model_and_draw_episodes_of_their_own() -> None:
    env = make()
    env.reset(seed=0)
    branches = env.branch(2)
    assert {id(branch._process.env) for branch in branches} == {id(env._process.env)}
    starts = [one.reset()[0]["latent"].tobytes() for one in (env, *branches)]
    assert len(set(starts)) == 3
    env.reset(seed=0)
    again = [one.reset()[0]["latent"].tobytes() for one in (env, *env.branch(2))]
    assert again == starts


def test_only_the_environment_that_has_the_rewards_ends_them() -> None:
    closed: list[str] = []
    env = make(on_close=lambda: closed.append("rewards"))
    env.reset(seed=0)
    for branch in env.branch(2):
        branch.close()
    assert closed == []
    env.close()
    assert closed == ["rewards"]


def test_before_a_reset_there_is_no_moment_to_branch() -> None:
    with pytest.raises(ResetNeeded):
        make().branch(2)


def test_a_random_action_samples_the_policy() -> None:
    space = Noise((200, 100))
    space.seed(0)
    draws = space.sample()
    assert draws in space and space.is_bounded()
    assert abs(float(draws.mean())) < 4 / 2e4**0.5
    assert abs(float(draws.var()) - 1) < 4 * (2 / 2e4) ** 0.5


def test_the_picture_of_an_unfinished_latent_is_what_the_network_expects() -> None:
    env = make(render_mode="rgb_array", family=Drawn)
    env.reset(seed=0)
    for step in range(6):
        state = env.snapshot().state
        image = env.render()
        assert image is not None and image.shape == (1, 1, 3) and image.dtype == np.uint8
        expected = env._process.env.policy(state, stochastic=False).denoised
        assert expected is not None
        assert image[0, 0].tolist() == (255 * expected[0, :3].sigmoid()).round().tolist()
        again = env.render()
        assert again is not None and np.array_equal(image, again)
        assert env.snapshot().state is state
        observation = env.step(DRAWS[step])[0]
    image = env.render()
    assert image is not None
    finished = torch.from_numpy(observation["latent"])
    assert image[0, 0].tolist() == (255 * finished[:3].sigmoid()).round().tolist()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: make(deterministic=[6]), "deterministic: expected steps below 6, got 6"),
        (lambda: make(render_mode="human"), "render_mode: expected rgb_array or None, got 'human'"),
        (
            lambda: make().reset(options={"task": 2}),
            "options.task: expected a row below 2, got 2",
        ),
    ],
    ids=["deterministic", "render_mode", "task"],
)
def test_a_mistake_is_one_line(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as error:
        wrong()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(1, np.float32), "action: expected shape (4,), got (1,)"),
        (np.full(4, np.nan, np.float32), "action: expected finite numbers, got some that are not"),
    ],
    ids=["shape", "nan"],
)
def test_an_action_that_is_none_is_refused(action: NDArray[np.float32], message: str) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(InputError) as error:
        env.step(action)
    assert str(error.value) == message


def test_samples_that_are_no_images_are_not_shown() -> None:
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(InputError, match="render: "):
        env.render()
