"""Stable-Baselines3's PPO learns noise from which the tiny model draws purple: `ppo.py 0 4480`."""

import sys

import numpy as np
from batched import Batched
from gymnasium import make_vec, spaces, vector
from gymnasium.wrappers.vector import FilterObservation, FlattenObservation, TransformAction
from stable_baselines3 import PPO

import treerl

SEED, EPISODES = (int(word) for word in sys.argv[1:])
WORLD = {"settings": {"env.steps": 3, "tree.branching.depth": 1}, "deterministic": [1, 2]}


def purple(tasks: tuple[treerl.Task, ...], count: int) -> vector.VectorEnv:
    """An action is the noise of all four channels at the first step; two more need none."""
    prompts = [task.prompt for task in tasks if "purple" in task.prompt]
    envs = make_vec("treerl/Denoising-v0", count, tasks=prompts, **WORLD)
    seen = FlattenObservation(FilterObservation(envs, ["latent", "step"]))
    boxes, box = spaces.Box(-8, 8, (count, 4)), spaces.Box(-8, 8, (4,))
    return TransformAction(seen, lambda a: np.broadcast_to(a.T, (8, 8, 4, count)).T, boxes, box)


def show(name: str, envs: vector.VectorEnv, act) -> None:
    seen = envs.reset(seed=10**6)[0]
    for _ in range(3):
        seen, rewards, *_ = envs.step(act(seen))
    print(f"{name:14s}{rewards.mean():.3f}", flush=True)


heldout = purple(treerl.assemble().heldout, count=360)
show("no noise", heldout, lambda seen: np.zeros((360, 4)))
heldout.unwrapped.action_space.seed(0)
show("its own noise", heldout.unwrapped, lambda _: heldout.unwrapped.action_space.sample())
sizes = {"n_steps": 6, "batch_size": 168, "gamma": 1.0, "gae_lambda": 1.0, "learning_rate": 3e-3}
sizes |= {"seed": SEED, "policy_kwargs": {"net_arch": [32], "log_std_init": -0.5}}
ppo = PPO("MlpPolicy", Batched(purple(treerl.assemble().tasks, 56)), **sizes).learn(3 * EPISODES)
show("PPO's noise", heldout, lambda seen: ppo.predict(seen, deterministic=True)[0])
