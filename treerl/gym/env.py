"""Any treerl environment as an ordinary `gymnasium.Env`, for search and control of your own."""

from collections.abc import Callable, Iterable
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from treerl.engine.env import Env
from treerl.engine.scorer import Scorer
from treerl.engine.tree import State
from treerl.gym.process import (
    Action,
    Info,
    Noise,
    Observation,
    Process,
    Snapshot,
    nothing,
    render_mode_of,
)


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

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        env: Env,
        rewards: Scorer,
        deterministic: Iterable[int] | None = None,
        render_mode: str | None = None,
        on_close: Callable[[], None] = nothing,
    ) -> None:
        """`env` has its tasks (`env.with_tasks`).

        By default the last step is deterministic: it has no density. `on_close` ends what the
        rewards hold, where nobody else does.
        """
        last = [env.steps - 1]
        chosen = frozenset(last if deterministic is None else deterministic)
        self._process = Process(env, rewards, chosen)
        self._on_close = on_close
        self._state: State | None = None
        self.render_mode = render_mode_of(render_mode)
        self.action_space = Noise(env.shape)  # type: ignore[assignment]
        self.observation_space = self._process.observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start from noise; `options={"task": row}` chooses the task."""
        super().reset(seed=seed)
        task = self._process.chosen(options)
        self._state = self._process.begin([self.np_random], [task])
        return self._observe(), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, Info]:
        """One step; `info["log_prob"]` is the action's log-density, mean over dimensions."""
        state = self._current()
        if self._over():
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() or restore()")
        self._state, infos = self._process.advance(state, np.asarray(action)[None])
        over = self._over()
        reward = self._process.pay(self._state, infos)[0] if over else 0.0
        return self._observe(), reward, over, False, infos[0]

    def render(self) -> NDArray[np.uint8] | None:
        """The finished image `[H, W, 3]`, or the one that the network expects: one forward more."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render_mode shows nothing")
            return None
        images = self._process.images(self._current())
        image: NDArray[np.uint8] = images[0]
        return image

    def close(self) -> None:
        """End the workers of the rewards, if they are this environment's own."""
        self._on_close()

    def snapshot(self) -> Snapshot:
        """The present moment."""
        return Snapshot(self._current())

    def restore(self, snapshot: Snapshot) -> Observation:
        """Go back (or over) to a moment; the same actions then give the same episode."""
        self._state = snapshot.state
        return self._observe()

    def branch(self, count: int) -> tuple["DenoisingEnv", ...]:
        """`count` environments at this moment, which go their own ways; model and rewards are one.

        To close them is nobody's duty: the workers of the rewards are ended with this environment.
        """
        state = self._current()
        branches = []
        for random in self.np_random.spawn(count):
            process = self._process
            env = DenoisingEnv(
                process.env, process.rewards, process.deterministic, self.render_mode
            )
            env.np_random = random
            env._state = state
            branches.append(env)
        return tuple(branches)

    def _over(self) -> bool:
        return bool(self._process.env.terminal(self._current()))

    def _current(self) -> State:
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._state

    def _observe(self) -> Observation:
        seen = self._process.observe(self._current())
        return {name: rows[0] for name, rows in seen.items()}
