"""N latents as one `gymnasium.vector.VectorEnv`: a step of all is one forward of the network."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from treerl.engine.env import Env
from treerl.engine.scorer import Scorer
from treerl.engine.tree import State
from treerl.errors import InputError
from treerl.gym.process import (
    Action,
    Info,
    Noise,
    Observation,
    Process,
    Snapshot,
    nothing,
    put,
    render_mode_of,
)

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


class VectorDenoisingEnv(VectorEnv[Observation, Action, NDArray[Any]]):
    """N episodes of `DenoisingEnv` side by side, row n as that one alone would go.

    An episode that ended begins anew at the next step, whose action for it is not looked at
    (`AutoresetMode.NEXT_STEP`). All rows can go on from the moments of chosen ones:

        observation = envs.branch([best] * envs.num_envs)
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        env: Env,
        rewards: Scorer,
        num_envs: int,
        deterministic: Iterable[int] | None = None,
        render_mode: str | None = None,
        on_close: Callable[[], None] = nothing,
    ) -> None:
        """As `DenoisingEnv`, with `num_envs` latents."""
        if num_envs < 1:
            raise InputError(f"num_envs: expected an integer >= 1, got {num_envs}")
        last = [env.steps - 1]
        chosen = frozenset(last if deterministic is None else deterministic)
        self._process = Process(env, rewards, chosen)
        self._on_close = on_close
        self._state: State | None = None
        self._randoms = [seeding.np_random()[0] for _ in range(num_envs)]
        self.num_envs = num_envs
        self.render_mode = render_mode_of(render_mode)
        self.single_action_space = Noise(env.shape)
        self.action_space = Noise((num_envs, *env.shape))
        self.single_observation_space = self._process.observation_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, Info]:
        """Start all from noise; row n takes seed + n, or the n-th of several seeds.

        `options={"task": row}` chooses the task of all, a sequence that of each.
        """
        if isinstance(seed, int):
            seed = [seed + n for n in range(self.num_envs)]
        for n, number in enumerate(self._each("seed", seed)):
            if number is not None:
                self._randoms[n] = seeding.np_random(number)[0]
        tasks = self._process.chosen(options)
        if not isinstance(tasks, Sequence | np.ndarray | None):
            tasks = [tasks] * self.num_envs
        self._state = self._process.begin(self._randoms, self._each("options.task", tasks))
        return self._process.observe(self._state), {}

    def step(self, actions: Action) -> tuple[Observation, Numbers, Flags, Flags, Info]:
        """One step of every row; infos are arrays of N, with a mask of the rows that have one."""
        before = self._current()
        over = self._over(before)
        infos: list[Info] = [{} for _ in range(self.num_envs)]
        moving = torch.from_numpy(~over).nonzero().flatten()
        if len(moving):
            moved, walked = self._process.advance(before.take(moving), actions[~over])
            self._state = put(before, moving, moved)
            for n, info in zip(moving.tolist(), walked, strict=True):
                infos[n] = info
        if over.any():
            self._begin_anew(np.flatnonzero(over).tolist())
        ended = self._over(self._current())
        rewards = np.zeros(self.num_envs)
        if ended.any():
            rewards[ended] = self._pay(np.flatnonzero(ended).tolist(), infos)
        seen = self._process.observe(self._current())
        return seen, rewards, ended, np.zeros_like(ended), self._gathered(infos)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The N images `[H, W, 3]`, finished or as the network expects them."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render_mode shows nothing")
            return None
        return tuple(self._process.images(self._current()))

    def close_extras(self, **kwargs: Any) -> None:
        """End the workers of the rewards, if they are this environment's own."""
        self._on_close()

    def snapshot(self) -> Snapshot:
        """The present moment of all N."""
        return Snapshot(self._current())

    def restore(self, snapshot: Snapshot) -> Observation:
        """Go back (or over) to a moment; the same actions then give the same episodes."""
        count = len(snapshot.state.x)
        if count != self.num_envs:
            raise InputError(f"restore: expected a moment of {self.num_envs} latents, got {count}")
        self._state = snapshot.state
        return self._process.observe(self._state)

    def branch(self, rows: Sequence[int]) -> Observation:
        """Row n goes on from the present moment of row `rows[n]`."""
        chosen = [int(row) for row in rows]
        if len(chosen) != self.num_envs or not set(chosen) <= set(range(self.num_envs)):
            count = self.num_envs
            raise InputError(f"branch: expected {count} rows below {count}, got {chosen}")
        state = self._current()
        self._state = state.take(torch.tensor(chosen))
        return self._process.observe(self._state)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of each row."""
        return tuple(self._randoms)

    def _begin_anew(self, rows: list[int]) -> None:
        begun = self._process.begin([self._randoms[n] for n in rows], [None] * len(rows))
        self._state = put(self._current(), torch.tensor(rows), begun)

    def _pay(self, rows: list[int], infos: list[Info]) -> list[float]:
        state = self._current()
        finished = state.take(torch.tensor(rows))
        return self._process.pay(finished, [infos[n] for n in rows])

    def _gathered(self, infos: list[Info]) -> Info:
        gathered: Info = {}
        for n, info in enumerate(infos):
            gathered = self._add_info(gathered, info, n)
        return gathered

    def _over(self, state: State) -> Flags:
        flags: Flags = self._process.env.terminal(state).cpu().numpy()
        return flags

    def _current(self) -> State:
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._state

    def _each(self, name: str, values: Sequence[int | None] | None) -> Sequence[int | None]:
        """One value a row."""
        count = self.num_envs
        values = [None] * count if values is None else values
        if len(values) != count:
            raise InputError(f"{name}: expected one for each of {count} rows, got {len(values)}")
        return values
