"""Any treerl environment as an ordinary `gymnasium.Env`, for search and control of your own."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from treerl.engine import noise
from treerl.engine.env import Env
from treerl.engine.noise import Stream
from treerl.engine.policy import Draws
from treerl.engine.scorer import Scorer
from treerl.engine.tree import State

Observation = dict[str, Any]
Action = NDArray[np.float32]


@dataclass(frozen=True)
class Snapshot:
    """A moment of an episode; it stays valid whatever the environment does afterwards."""

    state: State


@dataclass(frozen=True)
class _Chosen(Draws):
    """The noise that the caller chose in place of random draws."""

    z: Tensor  # [1, *shape]

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return self.z.to(dtype)

    def uniform(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        raise NotImplementedError("an action is normal noise; this policy draws uniform numbers")


class DenoisingEnv(gymnasium.Env[Observation, Action]):
    """One latent at a time; the action is the noise of the step, the reward comes at the end.

    The reward is the weighted total of `rewards`, as in training; `info["rewards"]` has each. An
    action ε `[*shape]` moves the latent to mean + std ε of the network's own Gaussian: zeros follow
    the mean, standard normal draws sample the policy. `deterministic` steps ignore it. Any moment
    can be kept and branched from:

        here = env.snapshot()
        for action in candidates:
            env.restore(here)
            env.step(action)
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own declaration)

    def __init__(
        self, env: Env, rewards: Scorer, deterministic: frozenset[int] | None = None
    ) -> None:
        """`env` has its tasks (`env.with_tasks`).

        By default the last step is deterministic: it has no density.
        """
        last = frozenset([env.steps - 1])
        self._env = env
        self._rewards = rewards
        self._deterministic = last if deterministic is None else deterministic
        self._state: State | None = None
        self.action_space = spaces.Box(-np.inf, np.inf, env.shape, np.float32)
        self.observation_space = spaces.Dict(
            {
                "latent": spaces.Box(-np.inf, np.inf, env.shape, np.float32),
                "step": spaces.Discrete(env.steps + 1),
                "task": spaces.Discrete(len(env.tasks)),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start from noise; `options={"task": row}` chooses the task."""
        super().reset(seed=seed)
        row = int((options or {}).get("task", self.np_random.integers(len(self._env.tasks))))
        key = noise.key(Stream.ROLLOUT, int(self.np_random.integers(2**62)))
        device = self._env.device
        start = noise.normal(key, self._env.shape, torch.float32, device)
        self._state = self._env.initial(torch.tensor([row], device=device), start)
        return self._observe(), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step; `info["log_prob"]` is the action's log-density, mean over dimensions."""
        state = self._current()
        if bool(self._env.terminal(state)):
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() or restore()")
        stochastic = int(state.step) not in self._deterministic
        info: dict[str, Any] = {}
        with torch.no_grad():
            policy = self._env.policy(state, stochastic)
            latent = policy.mode.to(self._env.latent_dtype)
            if stochastic:
                z = torch.as_tensor(np.asarray(action), device=self._env.device)[None]
                latent = policy.sample(_Chosen(z), self._env.latent_dtype)
                info["log_prob"] = float(policy.log_prob(latent))
            self._state = self._env.transition(state, latent)
        over = bool(self._env.terminal(self._state))
        reward = self._reward(info) if over else 0.0
        return self._observe(), reward, over, False, info

    def snapshot(self) -> Snapshot:
        """The present moment."""
        return Snapshot(self._current())

    def restore(self, snapshot: Snapshot) -> Observation:
        """Go back (or over) to a moment; the same actions then give the same episode."""
        self._state = snapshot.state
        return self._observe()

    def _reward(self, info: dict[str, Any]) -> float:
        scores = self._rewards(self._env.samples(self._current()))
        info["rewards"] = dict(zip(self._rewards.names, scores[0].tolist(), strict=True))
        return float(scores[0] @ self._rewards.weights)

    def _current(self) -> State:
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._state

    def _observe(self) -> Observation:
        state = self._current()
        return {
            "latent": state.x[0].to("cpu", torch.float32).numpy().copy(),
            "step": np.int64(int(state.step)),
            "task": np.int64(int(state.task)),
        }
