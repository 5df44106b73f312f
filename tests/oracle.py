"""Worlds whose every number is known: the linear-Gaussian flow in closed form, and a small network for the rest.

Data N(m, S² I), path x_σ = (1-σ) x₀ + σ ε. The exact velocity is affine in x, so every step of every kernel is
x' = A_k x + B_k + c_k θ_k + s_k z, where θ_k is a constant added to the velocity: what the tests train.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from treerl.engine import noise
from treerl.engine.env import Env
from treerl.engine.grow import Roots, plant
from treerl.engine.kernel import CPS, ODE, DanceSDE, FlowSDE, Gaussian, Kernel
from treerl.engine.objective import Edges
from treerl.engine.schedule import Flow
from treerl.engine.tree import State, Tree

KERNELS: tuple[Kernel, ...] = (FlowSDE(0.7), DanceSDE(0.3), CPS(0.8))


def schedule(steps: int, shift: float = 1.0) -> Flow:
    """σ = shift u / (1 + (shift - 1) u) for u from 1 to 0."""
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    sigma = shift * u / (1 + (shift - 1) * u)
    return Flow(time=sigma[:-1], sigma=sigma)


def published(kernel: Kernel, now: float, after: float, x: float, v: float) -> tuple[float, float]:
    """(mean, std) of one step as the papers print it, in plain numbers; an oracle for `Kernel.table`."""
    delta = now - after
    if isinstance(kernel, CPS):
        clean, noisy = x - now * v, x + (1 - now) * v
        std = after * math.sin(kernel.noise * math.pi / 2)
        return (1 - after) * clean + noisy * math.sqrt(after**2 - std**2), std
    if isinstance(kernel, FlowSDE):
        diffusion = kernel.noise * math.sqrt(now / (1 - (after if now == 1 else now)))
    else:
        diffusion = kernel.noise if isinstance(kernel, DanceSDE) else 0.0
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
        found = 0.0
        for k in range(len(self.a)):
            found = self.a[k] * found + self.b[k] + self.c[k] * (theta[k] if theta else 0.0)
        return found

    def variance(self) -> float:
        """Var[x_T] from Var[x_0] = 1."""
        found = 1.0
        for a, s in zip(self.a, self.s, strict=True):
            found = a * a * found + s * s
        return found

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
        rows.append(
            (step(1.0, 0.0) - b, b, step(0.0, 1.0) - b, published(taken, now, after, 0.0, 0.0)[1])
        )
    return Steps(*zip(*rows, strict=True))


class World(Env):
    """The part of an environment that both worlds share; `asked` counts the rows that went through `velocity`."""

    def __init__(
        self,
        kernel: Kernel,
        schedule: Flow,
        shape: tuple[int, ...],
        storage: torch.dtype = torch.float64,
    ) -> None:
        self.schedule = schedule
        self.noisy, self.smooth = kernel.table(schedule), ODE().table(schedule)
        self._shape, self._storage = shape, storage
        self.asked = 0

    @property
    def steps(self) -> int:
        return self.schedule.steps

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def storage(self) -> torch.dtype:
        return self._storage

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def velocity(self, state: State) -> Tensor:
        raise NotImplementedError

    def initial(self, prompt: Tensor, noise: Tensor) -> State:
        return State(noise.to(torch.float64), torch.zeros_like(prompt), prompt)

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        self.asked += len(state.step)
        table = self.noisy if stochastic else self.smooth
        return table.gaussian(state.x, self.velocity(state), state.step)

    def reward(self, state: State) -> Tensor:
        return state.x.double().flatten(1).sum(1, keepdim=True)


class Linear(World):
    """The oracle: `theta` `[P, T]` or `[T]` is added to the velocity, a row for each prompt or one for all."""

    def __init__(
        self,
        kernel: Kernel,
        schedule: Flow,
        theta: Tensor,
        mean: float = 0.4,
        spread: float = 0.5,
        shape: tuple[int, ...] = (1,),
        storage: torch.dtype = torch.float64,
    ) -> None:
        super().__init__(kernel, schedule, shape, storage)
        self.theta, self.mean, self.spread = theta, mean, spread

    def velocity(self, state: State) -> Tensor:
        dtype = torch.promote_types(state.x.dtype, torch.float32)
        wide = (-1, *(1,) * len(self.shape))
        sigma = self.schedule.sigma[state.step]
        pull = (sigma - (1 - sigma) * self.spread**2) / (
            (1 - sigma) ** 2 * self.spread**2 + sigma**2
        )
        theta = (
            self.theta[state.prompt, state.step]
            if self.theta.dim() == 2
            else self.theta[state.step]
        )
        offset = theta - pull * (1 - sigma) * self.mean - self.mean
        return pull.to(dtype).view(wide) * state.x.to(dtype) + offset.to(dtype).view(wide)


class Neural(World):
    """A world whose velocity is a small network of (x, σ, prompt)."""

    def __init__(
        self,
        kernel: Kernel,
        schedule: Flow,
        shape: tuple[int, ...] = (6,),
        storage: torch.dtype = torch.float32,
        width: int = 16,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        super().__init__(kernel, schedule, shape, storage)
        dims = math.prod(shape)
        self.network = nn.Sequential(
            nn.Linear(dims + 2, width), nn.Tanh(), nn.Linear(width, dims)
        ).to(dtype)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.network.parameters():
                weight.copy_(
                    0.4 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                )
        self.content = torch.arange(1024)  # what the prompt in each row says

    def velocity(self, state: State) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        extra = torch.stack(
            [self.schedule.sigma[state.step], torch.sin(self.content[state.prompt].double())], 1
        )
        found: Tensor = self.network(torch.cat([state.x.flatten(1).to(dtype), extra.to(dtype)], 1))
        return found.view(-1, *self.shape)


def log_density(x: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
    """log N(x; mean, std²) of each dimension, by torch's own distributions; `std` is a number or one for each row."""
    wide = std.view(-1, *(1,) * (x.dim() - 1)) if isinstance(std, Tensor) else std
    found: Tensor = torch.distributions.Normal(mean, wide).log_prob(x)  # type: ignore[no-untyped-call]
    return found


def planted(prompts: int, roots: int = 1, seed: int = 0, shared_noise: bool = False) -> Roots:
    """Roots with keys as the trainer makes them."""
    return plant([noise.key(seed, row) for row in range(prompts)], roots, shared_noise)


def many(count: int) -> Roots:
    """`count` prompts of one tree each, made without a loop; their keys are all different."""
    keys = np.arange(count, dtype=np.uint64)
    return Roots(torch.arange(count), keys, keys)


def edges(tree: Tree, nodes: Tensor, advantage: Tensor) -> Edges:
    """What the objective is told about the edges into `nodes`."""
    return Edges(tree.at(nodes).x, tree.log_prob[nodes], advantage[nodes], None)


def replay(env: Env, tree: Tree, nodes: Tensor) -> Gaussian:
    """The policy at the parents of `nodes`, one row for each of them."""
    return env.policy(tree.at(tree.parent[nodes]), stochastic=True)
