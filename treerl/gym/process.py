"""A denoising process as both Gymnasium classes walk it: M latents, each at a step of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from treerl.errors import InputError, shorten

Observation = dict[str, Any]
Action = NDArray[np.float32]
Info = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """A moment of an episode, or of N; it stays valid whatever the environment does afterwards."""

    state: State


class Noise(spaces.Box):
    """The noise of a step; `sample` draws it from N(0, I), as the policy itself does."""

    BOUND = 8.0  # no draw goes beyond it: of 10¹⁴ standard normal numbers, one would

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(-Noise.BOUND, Noise.BOUND, shape, np.float32)

    def sample(self, mask: None = None, probability: None = None) -> Action:
        draws = self.np_random.standard_normal(self.shape, dtype=np.float32)
        return draws.clip(self.low, self.high)


@dataclass(frozen=True)
class _Chosen(Draws):
    """The noise that the caller chose in place of random draws."""

    z: Tensor  # [M, *shape]

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return self.z.to(dtype)

    def uniform(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        raise InputError("action: expected a policy of normal noise, got one of uniform numbers")


@dataclass(frozen=True)
class Process:
    """An environment, what its finished samples are worth, and which steps follow the mean."""

    env: Env  # with its tasks
    rewards: Scorer
    deterministic: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        steps = range(self.env.steps)
        outside = sorted(self.deterministic - set(steps))
        if outside:
            raise InputError(f"deterministic: expected steps below {len(steps)}, got {outside[0]}")
        self.env.validate_stds(tuple(step not in self.deterministic for step in steps))

    @property
    def observation_space(self) -> spaces.Dict:
        """A latent is finite, and nothing else is known of it."""
        most = float(np.finfo(np.float32).max)
        return spaces.Dict(
            {
                "latent": spaces.Box(-most, most, self.env.shape, np.float32),
                "step": spaces.Discrete(self.env.steps + 1),
                "task": spaces.Discrete(len(self.env.tasks)),
            }
        )

    @staticmethod
    def chosen(options: Mapping[str, Any] | None) -> Any:
        """The option `task` of a reset; another one is refused, as nobody would look at it."""
        others = set(options or {}) - {"task"}
        if others:
            raise InputError(f"options: expected task alone, got {shorten(sorted(others)[0])}")
        return (options or {}).get("task")

    def begin(self, randoms: Sequence[np.random.Generator], tasks: Sequence[int | None]) -> State:
        """M latents at step 0, each of its generator's noise; None lets that draw the task, too."""
        count = len(self.env.tasks)
        drawn = [int(random.integers(count)) for random in randoms]
        keys = [noise.key(Stream.ROLLOUT, int(random.integers(2**62))) for random in randoms]
        rows = [row if task is None else task for row, task in zip(drawn, tasks, strict=True)]
        for row in rows:
            whole = isinstance(row, int | np.integer) and not isinstance(row, bool)
            if not whole or not 0 <= row < count:
                raise InputError(f"options.task: expected a row below {count}, got {shorten(row)}")
        device = self.env.device
        start = noise.normal(np.concatenate(keys), self.env.shape, torch.float32, device)
        with torch.no_grad():
            state = self.env.initial(torch.tensor(rows, device=device), start)
        return State(state.x.to(self.env.latent_dtype), state.step, state.task)

    def advance(self, state: State, actions: Action) -> tuple[State, list[Info]]:
        """One step of every latent; where it is sampled, the info has the action's log-density."""
        z = self._noise(actions, len(state.x))
        sampled = [step not in self.deterministic for step in state.step.tolist()]
        infos: list[Info] = [{} for _ in sampled]
        latent = torch.empty_like(state.x, dtype=self.env.latent_dtype)
        with torch.no_grad():
            for stochastic in sorted(set(sampled)):  # one forward where all are alike
                rows = [row for row, flag in enumerate(sampled) if flag == stochastic]
                index = torch.tensor(rows, device=state.x.device)
                policy = self.env.policy(state.take(index), stochastic)
                if stochastic:
                    moved = policy.sample(_Chosen(z[index]), self.env.latent_dtype)
                    for row, log_prob in zip(rows, policy.log_prob(moved).tolist(), strict=True):
                        infos[row]["log_prob"] = log_prob
                else:
                    moved = policy.mode.to(self.env.latent_dtype)
                latent[index] = moved.to(latent.device)
            return self.env.transition(state, latent), infos

    def pay(self, state: State, infos: Sequence[Info]) -> list[float]:
        """The weighted totals `[M]` of finished samples; each info gets the rewards by name."""
        scores = self.rewards(self.env.samples(state))
        for info, row in zip(infos, scores.tolist(), strict=True):
            info["rewards"] = dict(zip(self.rewards.names, row, strict=True))
        totals: list[float] = (scores @ self.rewards.weights).tolist()
        return totals

    def observe(self, state: State) -> Observation:
        """What is seen of M latents, in arrays of M rows that nobody else holds."""
        return {
            "latent": state.x.detach().to("cpu", torch.float32, copy=True).numpy(),
            "step": state.step.to("cpu", torch.int64, copy=True).numpy(),
            "task": state.task.to("cpu", torch.int64, copy=True).numpy(),
        }

    def images(self, state: State) -> NDArray[np.uint8]:
        """`[M, H, W, 3]`: finished samples, or those that the network expects, decoded.

        The frames of a video stand side by side.
        """
        with torch.no_grad():
            samples = self.env.samples(self._expected(state)).images
        if samples.dim() == 5:
            samples = torch.cat(samples.unbind(1), dim=-1)
        if samples.dim() != 4 or samples.shape[1] != 3:
            shape = tuple(samples.shape[1:])
            raise InputError(f"render: expected samples that are images, got some of shape {shape}")
        pixels: NDArray[np.uint8] = (255 * samples).round().to(torch.uint8).numpy()
        return pixels.transpose(0, 2, 3, 1).copy()

    def _expected(self, state: State) -> State:
        index = (~self.env.terminal(state)).nonzero().flatten()
        if not len(index):
            return state
        x0 = self.env.policy(state.take(index), stochastic=False).denoised
        if x0 is None:
            raise InputError(f"render: {type(self.env).__name__} predicts no finished sample")
        x = state.x.clone()
        x[index] = x0.to(x)
        return State(x, torch.full_like(state.step, self.env.steps), state.task)

    def _noise(self, actions: Action, count: int) -> Tensor:
        z = torch.as_tensor(np.asarray(actions), device=self.env.device)
        if z.shape != (count, *self.env.shape):
            got = tuple(z.shape[1:])
            raise InputError(f"action: expected shape {self.env.shape}, got {got}")
        if not bool(torch.isfinite(z).all()):
            raise InputError("action: expected finite numbers, got some that are not")
        return z


def put(state: State, index: Tensor, part: State) -> State:
    """The states with the rows `index` replaced by those of `part`."""
    x, step, task = state.x.clone(), state.step.clone(), state.task.clone()
    x[index], step[index], task[index] = part.x.to(x), part.step, part.task
    return State(x, step, task)


def render_mode_of(name: str | None) -> str | None:
    """The way of rendering, checked."""
    if name not in (None, "rgb_array"):
        raise InputError(f"render_mode: expected rgb_array or None, got {name!r}")
    return name


def nothing() -> None:
    """What closing does to rewards that belong to somebody else."""
