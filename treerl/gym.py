"""The denoising process as an ordinary `gymnasium.Env`, for search and control with one's own code."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from treerl.engine import noise
from treerl.engine.env import Env, PromptedEnv
from treerl.engine.noise import Purpose
from treerl.engine.tree import State

Observation = dict[str, Any]
Action = NDArray[np.float32]


@dataclass(frozen=True)
class Snapshot:
    """A moment of an episode; it stays valid whatever the environment does afterwards."""

    state: State


class DenoisingEnv(gymnasium.Env[Observation, Action]):
    """One latent at a time; the action is the noise of the step, the reward comes with the last step.

    An action ε `[*shape]` moves the latent to mean + std ε of the network's own Gaussian: zeros follow the mean, draws
    of a standard normal sample the policy. `deterministic` steps ignore it. Any moment can be kept and branched from:

        here = env.snapshot()
        for action in candidates:
            env.restore(here)
            env.step(action)
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own declaration)

    def __init__(self, env: Env, prompts: int, deterministic: frozenset[int] | None = None) -> None:
        """`prompts` rows are drawn from at reset; by default the last step, which has no density, is deterministic."""
        self._env = env
        self._prompts = prompts
        self._deterministic = frozenset([env.steps - 1]) if deterministic is None else deterministic
        self._state: State | None = None
        latent = spaces.Box(-np.inf, np.inf, env.shape, np.float32)
        self.action_space = spaces.Box(-np.inf, np.inf, env.shape, np.float32)
        self.observation_space = spaces.Dict(
            {
                "latent": latent,
                "step": spaces.Discrete(env.steps + 1),
                "prompt": spaces.Discrete(prompts),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start from noise; `options={"prompt": row}` chooses the prompt."""
        super().reset(seed=seed)
        row = int((options or {}).get("prompt", self.np_random.integers(self._prompts)))
        key = noise.key(Purpose.ROLLOUT, int(self.np_random.integers(2**62)))
        device = self._env.device
        start = noise.normal(key, self._env.shape, torch.float32, device)
        self._state = self._env.initial(torch.tensor([row], device=device), start)
        return self._observe(), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One denoising step; `info["log_prob"]` is the action's log-density, mean over dimensions."""
        state = self._current()
        if bool(self._env.terminal(state)):
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() or restore()")
        stochastic = int(state.step) not in self._deterministic
        with torch.no_grad():
            policy = self._env.policy(state, stochastic)
            draw = torch.as_tensor(np.asarray(action), device=self._env.device).to(policy.mean)[
                None
            ]
            latent = policy.sample(draw, self._env.storage)
            info = {"log_prob": float(policy.log_prob(latent))} if stochastic else {}
            self._state = self._env.transition(state, latent)
            over = bool(self._env.terminal(self._state))
            reward = self._reward(self._state) if over else 0.0
        return self._observe(), reward, over, False, info

    def snapshot(self) -> Snapshot:
        """The present moment."""
        return Snapshot(self._current())

    def restore(self, snapshot: Snapshot) -> Observation:
        """Go back (or over) to a moment; the same actions then give the same episode."""
        self._state = snapshot.state
        return self._observe()

    def _reward(self, state: State) -> float:
        scores = self._env.reward(state)
        if isinstance(self._env, PromptedEnv):
            return float(self._env.rewards.total(scores))
        return float(scores.sum())

    def _current(self) -> State:
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._state

    def _observe(self) -> Observation:
        state = self._current()
        latent = state.x[0].to("cpu", torch.float32).numpy().copy()
        return {
            "latent": latent,
            "step": np.int64(int(state.step)),
            "prompt": np.int64(int(state.prompt)),
        }
