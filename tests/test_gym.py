"""The Gymnasium wrapper: passes the checker, branches, and is the same process as the builder's."""

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from oracle import Linear, schedule

from treerl.engine.kernel import FlowSDE
from treerl.gym import DenoisingEnv

SHAPE = (4,)
STILL = np.zeros(SHAPE, np.float32)


def make() -> DenoisingEnv:
    return DenoisingEnv(
        Linear(FlowSDE(), schedule(6), torch.zeros(6).double(), shape=SHAPE, storage=torch.float32),
        prompts=3,
    )


@pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # the checker warns of unbounded boxes, which latents are
def test_the_checker_accepts_it() -> None:
    check_env(make(), skip_render_check=True)


def test_a_restored_moment_repeats_and_branches() -> None:
    env = make()
    env.reset(seed=0)
    draws = np.random.default_rng(0).standard_normal((7, *SHAPE)).astype(np.float32)
    env.step(draws[0])
    here = env.snapshot()

    def finish(first: int) -> tuple[float, bytes]:
        env.restore(here)
        order = [first, 2, 3, 4, 5]
        results = [env.step(draws[one]) for one in order]
        assert [result[2] for result in results] == [False] * 4 + [True]
        return results[-1][1], results[-1][0]["latent"].tobytes()

    assert finish(1) == finish(1)
    assert finish(1) != finish(6)


def test_noise_of_zeros_follows_the_mean_and_has_the_density_of_its_peak() -> None:
    env = make()
    env.reset(seed=1, options={"prompt": 2})
    observation, reward, over, _, info = env.step(STILL)
    std = float(FlowSDE().table(schedule(6)).std[0])
    assert info["log_prob"] == pytest.approx(-np.log(std) - 0.5 * np.log(2 * np.pi), rel=1e-6)
    assert (observation["prompt"], observation["step"], reward, over) == (2, 1, 0.0, False)


def test_it_says_when_a_reset_is_needed() -> None:
    env = make()
    with pytest.raises(ResetNeeded):
        env.step(STILL)
    env.reset(seed=0)
    for _ in range(6):
        env.step(STILL)
    with pytest.raises(ResetNeeded):
        env.step(STILL)
