"""A vector environment of Gymnasium as Stable-Baselines3 wants one, for `ppo.py`."""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv


class Batched(VecEnv):
    """Episodes of equal length, which begin anew in the very step that ends them."""

    def __init__(self, envs: VectorEnv) -> None:
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> np.ndarray:
        seen, _ = self.envs.reset(seed=self._seeds)
        self._reset_seeds()
        return seen

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        seen, rewards, over, _, _ = self.envs.step(self.actions)
        if not over.all():
            return seen, rewards, over, [{} for _ in rewards]
        return self.reset(), rewards, over, [{"terminal_observation": row} for row in seen]

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.envs, attr_name)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    env_method = set_attr = NotImplemented  # PPO calls neither
