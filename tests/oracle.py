"""Worlds whose every number is known: the linear-Gaussian flow, and a small network for the rest.

Data N(m, S² I), path x_σ = (1-σ) x₀ + σ ε. The exact velocity is affine in x, so every step of
every kernel is x' = A_k x + B_k + c_k θ_k + s_k z, where θ_k is a constant added to the velocity:
what the tests train.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from treerl.engine.env import Env, Leap, Slope
from treerl.engine.kernel import CPS, ODE, Coefficients, DanceSDE, FlowSDE, Kernel
from treerl.engine.policy import Gaussian
from treerl.engine.schedule import Flow
from treerl.engine.tree import State

KERNELS: tuple[Kernel, ...] = (FlowSDE(0.7), DanceSDE(0.3), CPS(0.8))


def schedule(steps: int, shift: float = 1.0) -> Flow:
    """σ = shift u / (1 + (shift - 1) u) for u from 1 to 0."""
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    sigma = shift * u / (1 + (shift - 1) * u)
    return Flow(time=sigma[:-1], sigma=sigma)


def published(kernel: Kernel, now: float, after: float, x: float, v: float) -> tuple[float, float]:
    """(mean, std) of one step as the papers print it: an oracle for `Kernel.coefficients`."""
    delta = now - after
    if isinstance(kernel, CPS):
        clean = x - now * v
        noisy = x + (1 - now) * v
        std = after * math.sin(kernel.noise_level * math.pi / 2)
        return (1 - after) * clean + noisy * math.sqrt(after**2 - std**2), std
    diffusion = 0.0
    if isinstance(kernel, FlowSDE):
        guarded = after if now == 1 else now
        diffusion = kernel.noise_level * math.sqrt(now / (1 - guarded))
    if isinstance(kernel, DanceSDE):
        diffusion = kernel.noise_level
    score = -(x + (1 - now) * v) / now
    return x - delta * v + 0.5 * diffusion**2 * score * delta, diffusion * math.sqrt(delta)


@dataclass(frozen=True)
class Steps:
    """The closed form of a whole path: x_{k+1} = a_k x_k + b_k + c_k θ_k + s_k z."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    s: tuple[float, ...]

    def mean(self, theta: Sequence[float] | None = None) -> float:
        """E[x_T] from E[x_0] = 0."""
        mean = 0.0
        for k in range(len(self.a)):
            mean = self.a[k] * mean + self.b[k] + self.c[k] * (theta[k] if theta else 0.0)
        return mean

    def variance(self) -> float:
        """Var[x_T] from Var[x_0] = 1."""
        variance = 1.0
        for a, s in zip(self.a, self.s, strict=True):
            variance = a * a * variance + s * s
        return variance

    def gradient(self) -> list[float]:
        """d E[x_T] / d θ_k = c_k a_{k+1} ... a_{T-1}: the exact policy gradient of the reward x."""
        return [self.c[k] * math.prod(self.a[k + 1 :]) for k in range(len(self.a))]


def closed_form(
    kernel: Kernel,
    sigma: list[float],
    mean: float,
    spread: float,
    stochastic: Sequence[bool] | None = None,
) -> Steps:
    """The coefficients of every step; the deterministic ones take the ODE's."""
    rows = []
    for k, (now, after) in enumerate(pairwise(sigma)):
        taken = kernel if stochastic is None or stochastic[k] else ODE()
        pull = (now - (1 - now) * spread**2) / ((1 - now) ** 2 * spread**2 + now**2)

        def step(
            x: float, theta: float, now: float = now, after: float = after, pull: float = pull
        ) -> float:
            velocity = pull * (x - (1 - now) * mean) - mean + theta
            return published(taken, now, after, x, velocity)[0]  # noqa: B023

        b = step(0.0, 0.0)
        std = published(taken, now, after, 0.0, 0.0)[1]
        rows.append((step(1.0, 0.0) - b, b, step(0.0, 1.0) - b, std))
    return Steps(*zip(*rows, strict=True))


class World(Env):
    """What both worlds share."""

    leaps = True

    def __init__(
        self,
        kernel: Kernel,
        schedule: Flow,
        shape: tuple[int, ...],
        latent_dtype: torch.dtype = torch.float64,
    ) -> None:
        self.schedule = schedule
        self.noisy = kernel.coefficients(schedule)
        self.smooth = ODE().coefficients(schedule)
        self._forwards = [0]  # shared with the copies that `with_tasks` makes
        self._shape = shape
        self._latent_dtype = latent_dtype

    @property
    def steps(self) -> int:
        return self.schedule.steps

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def latent_dtype(self) -> torch.dtype:
        return self._latent_dtype

    @property
    def forwards(self) -> int:
        """Rows that went through `velocity`."""
        return self._forwards[0]

    @property
    def step_coefficients(self) -> Coefficients:
        return self.noisy

    def velocity(self, state: State) -> Tensor:
        raise NotImplementedError

    def initial(self, task: Tensor, noise: Tensor) -> State:
        return State(noise.to(torch.float64), torch.zeros_like(task), task)

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        self._forwards[0] += len(state.step)
        velocity = self.velocity(state)
        coefficients = self.noisy if stochastic else self.smooth
        gaussian = coefficients.gaussian(state.x, velocity, state.step)
        return replace(gaussian, x0=self.schedule.denoised(state.x, velocity, state.step))

    def leap(self, state: State, stride: int, before: Slope | None) -> Leap:
        self._forwards[0] += len(state.step)
        slope = self.velocity(state)
        straight = slope
        if before is not None:
            share = self.schedule.lookback(state.step, stride, before.stride)
            straight = slope + share * (slope - before.value)
        x = self.schedule.move(state.x, straight, state.step, stride)
        return Leap(x, slope, self.schedule.denoised(state.x, slope, state.step))

    def sigma(self, step: Tensor) -> Tensor:
        return self.schedule.sigma[step]

    def noised(self, x0: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return self.schedule.noised(x0, eps, step)


class Linear(World):
    """The oracle: `theta` `[P, T]` (a row for each task) or `[T]` is added to the velocity."""

    def __init__(
        self,
        kernel: Kernel,
        schedule: Flow,
        theta: Tensor,
        mean: float = 0.4,
        spread: float = 0.5,
        shape: tuple[int, ...] = (1,),
        latent_dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(kernel, schedule, shape, latent_dtype)
        self.theta = theta
        self.mean = mean
        self.spread = spread

    def velocity(self, state: State) -> Tensor:
        dtype = torch.promote_types(state.x.dtype, torch.float32)
        rows = (-1, *(1,) * len(self.shape))
        sigma = self.schedule.sigma[state.step]
        variance = (1 - sigma) ** 2 * self.spread**2 + sigma**2
        pull = (sigma - (1 - sigma) * self.spread**2) / variance
        per_task = self.theta.dim() == 2
        theta = self.theta[state.task, state.step] if per_task else self.theta[state.step]
        offset = theta - pull * (1 - sigma) * self.mean - self.mean
        return pull.to(dtype).view(rows) * state.x.to(dtype) + offset.to(dtype).view(rows)


class Neural(World):
    """A world whose velocity is a small network of (x, σ, task)."""

    def __init__(
        self,
        kernel: Kernel,
        schedule: Flow,
        shape: tuple[int, ...] = (6,),
        latent_dtype: torch.dtype = torch.float32,
        width: int = 16,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__(kernel, schedule, shape, latent_dtype)
        dims = math.prod(shape)
        layers = (nn.Linear(dims + 2, width), nn.Tanh(), nn.Linear(width, dims))
        self.network = nn.Sequential(*layers).to(dtype)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.network.parameters():
                draws = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                weight.copy_(0.4 * draws)
        self.content = torch.arange(1024)  # what the task in each row says

    def velocity(self, state: State) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        sigma = self.schedule.sigma[state.step]
        task = torch.sin(self.content[state.task].double())
        extra = torch.stack([sigma, task], 1)
        inputs = torch.cat([state.x.flatten(1).to(dtype), extra.to(dtype)], 1)
        velocity: Tensor = self.network(inputs)
        return velocity.view(-1, *self.shape)
