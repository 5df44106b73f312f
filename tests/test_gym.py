"""The Gymnasium wrapper: passes the checker, branches, and is the same process as the builder's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from oracle import Linear, schedule
from plain import SUM, Always, Counted, PlainRewards, total

from treerl.engine.algorithm import Algorithm
from treerl.engine.kernel import FlowSDE
from treerl.engine.scorer import Scorer
from treerl.engine.task import Samples
from treerl.engine.trainer import Trainer
from treerl.engine.tree import State
from treerl.engine.tree_spec import TreeSpec
from treerl.gym.env import DenoisingEnv

SHAPE = (4,)
STILL = np.zeros(SHAPE, np.float32)
TASKS = ("a cat", "a dog", "a fox")


def world() -> Linear:
    theta = torch.zeros(6, dtype=torch.float64)
    return Linear(FlowSDE(), schedule(6), theta, shape=SHAPE, latent_dtype=torch.float32)


def make(rewards: Scorer = SUM, deterministic: frozenset[int] | None = None) -> DenoisingEnv:
    return DenoisingEnv(world().with_tasks(TASKS), rewards, deterministic)


@pytest.mark.filterwarnings(
    "ignore:.*For Box action spaces, we recommend"
)  # noise of one axis is as wide as any
def test_gymnasiums_own_checker_accepts_it() -> None:
    check_env(make(), skip_render_check=True)


def test_a_restored_moment_repeats_and_branches() -> None:
    env = make()
    env.reset(seed=0)
    draws = np.random.default_rng(0).standard_normal((7, *SHAPE)).astype(np.float32)
    env.step(draws[0])
    here = env.snapshot()

    def finish(first: int) -> tuple[float, bytes]:
        env.restore(here)
        results = [env.step(draws[row]) for row in (first, 2, 3, 4, 5)]
        assert [result[2] for result in results] == [False] * 4 + [True]
        return results[-1][1], results[-1][0]["latent"].tobytes()

    assert finish(1) == finish(1)
    assert finish(1) != finish(6)


def test_an_episode_starts_from_the_latent_that_training_would_store() -> None:
    theta = torch.zeros(6, dtype=torch.float64)
    flow = Linear(FlowSDE(), schedule(6), theta, shape=SHAPE, latent_dtype=torch.bfloat16)
    env = DenoisingEnv(flow.with_tasks(TASKS), SUM)
    env.reset(seed=0)
    assert env.snapshot().state.x.dtype == torch.bfloat16


def test_noise_of_zeros_follows_the_mean_and_has_the_density_of_its_peak() -> None:
    env = make()
    env.reset(seed=1, options={"task": 2})
    observation, reward, over, _, info = env.step(STILL)
    std = float(FlowSDE().coefficients(schedule(6)).std[0])
    assert info["log_prob"] == pytest.approx(-np.log(std) - 0.5 * np.log(2 * np.pi), rel=1e-6)
    assert (observation["task"], observation["step"], reward, over) == (2, 1, 0.0, False)


def test_it_says_when_a_reset_is_needed() -> None:
    env = make()
    with pytest.raises(ResetNeeded):
        env.step(STILL)
    env.reset(seed=0)
    for _ in range(6):
        env.step(STILL)
    with pytest.raises(ResetNeeded):
        env.step(STILL)


def test_by_default_every_step_is_sampled_but_the_last() -> None:
    env = make()
    env.reset(seed=0)
    sampled = ["log_prob" in env.step(STILL)[-1] for _ in range(6)]
    assert sampled == [True] * 5 + [False]
    loud = np.full(SHAPE, 5, np.float32)
    env.reset(seed=0)
    for _ in range(5):
        env.step(STILL)
    here = env.snapshot()
    quiet_end = env.step(STILL)[0]["latent"]
    env.restore(here)
    assert np.array_equal(env.step(loud)[0]["latent"], quiet_end)  # the noise is not looked at


def test_steps_that_are_named_deterministic_are_and_no_other() -> None:
    env = make(deterministic=frozenset({0, 2, 5}))
    env.reset(seed=0)
    sampled = ["log_prob" in env.step(STILL)[-1] for _ in range(6)]
    assert sampled == [False, True, False, True, True, False]


def test_a_deterministic_step_is_that_of_the_ode() -> None:
    env = make(deterministic=frozenset({1}))
    env.reset(seed=0)
    env.step(STILL)
    state = env.snapshot().state
    ode, sde = (env._process.env.policy(state, flag).mode[0].float() for flag in (False, True))
    latent = torch.from_numpy(env.step(STILL)[0]["latent"])
    assert torch.equal(latent, ode) and not torch.allclose(latent, sde, atol=1e-3)


class Scores:
    """The same number for every sample."""

    def __init__(self, number: float) -> None:
        self.number = number

    def __call__(self, samples: Samples) -> torch.Tensor:
        return torch.full((len(samples),), self.number, dtype=torch.float64)


def episode(env: DenoisingEnv) -> tuple[list[float], dict[str, float]]:
    env.reset(seed=3)
    results = [env.step(STILL) for _ in range(6)]
    return [result[1] for result in results], results[-1][-1]["rewards"]


def test_the_reward_of_several_is_their_weighted_total_and_info_has_each() -> None:
    rewards = PlainRewards({"up": Scores(0.847), "down": Scores(-1.033)}, (1.0, -0.5))
    received, each = episode(make(rewards))
    assert received[:-1] == [0.0] * 5
    assert received[-1] == pytest.approx(1.3635, abs=1e-12)  # where a sum of columns is -0.186
    assert each == {"up": 0.847, "down": -1.033}


def square(samples: Samples) -> torch.Tensor:
    return samples.images.double().square().sum(1)


def test_an_episode_is_paid_what_the_trainer_trains_on() -> None:
    rewards = PlainRewards({"sum": total, "square": square}, (1.0, -0.5))
    spec = TreeSpec((1,) * 6, (True,) * 5 + (False,))
    algorithm = Algorithm(branching=Always(spec), trees_per_prompt=3, optimizer_steps=1)
    env = world()
    env.theta.requires_grad_()
    step = Trainer(env, rewards, algorithm, Counted([env.theta], 0.0), 8).iterate(TASKS)
    tree = step.tree
    wrapped = DenoisingEnv(env.with_tasks(TASKS), rewards)
    wrapped.reset(seed=0)
    payments = []
    coefficients = FlowSDE().coefficients(schedule(6))
    for root in range(9):
        # the very noise of a chain of the forest, step by step
        nodes = [root]
        while len(nodes) < 7:
            nodes.append(int((tree.parent == nodes[-1]).nonzero()))
        state = tree.at(torch.tensor(nodes[:1]))
        wrapped.restore(replace(wrapped.snapshot(), state=state))
        for child in nodes[1:]:
            assert wrapped._state is not None
            here: State = wrapped._state
            k = int(here.step)
            mean = env.policy(here, stochastic=True).mean.detach()
            noise = (tree.at(torch.tensor([child])).x - mean) / max(
                float(coefficients.std[k]), 1e-9
            )
            result = wrapped.step(noise[0].numpy())
        payments.append(result[1])
    expected = step.scores[tree.leaves] @ rewards.weights
    assert payments == pytest.approx(expected.tolist(), rel=1e-5)
    assert step.metrics["reward"] == pytest.approx(sum(payments) / 9, rel=1e-5)
