"""Kernels: one reverse step as a Gaussian, x' ~ N(a_i x + b_i p, s_i²), the same numbers for sampler and scorer.

p is the network's prediction. Of a rectified flow it is the velocity v = ε - x₀, with x_σ = (1-σ) x₀ + σ ε, σ falling
from 1 (noise) to 0 (sample), Δ_i = σ_i - σ_{i+1}; of a diffusion model it is ε or v (schedule.py).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.schedule import Flow, Schedule
from treerl.errors import InputError, NumericsError

STD_FLOOR, STD_CEILING = (
    math.exp(-5),
    math.exp(2),
)  # a density narrower or wider than this cannot be scored soundly
_NEAR_ONE = 1e-3  # within this of σ = 1 the factor 1/(1-σ) is taken at the next σ, as Flow-GRPO does at σ = 1


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian over the next latent, one row each; std 0 is the point mass of an ODE step."""

    mean: Tensor  # [M, ...] float32 or better
    std: Tensor  # [M]

    def take(self, index: Tensor) -> "Gaussian":
        """The rows `index` `[E]`; siblings take their parent's row."""
        return Gaussian(self.mean[index], self.std[index])

    def sample(self, noise: Tensor, dtype: torch.dtype) -> Tensor:
        """A draw `[M, ...]`, rounded to the storage `dtype`: what is scored and fed back is exactly what is stored."""
        return (self.mean + self._wide(self.std) * noise).to(dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x; mean, std²) `[M]`, averaged over the dimensions (Flow-GRPO's convention: divide by D)."""
        if bool((self.std <= 0).any()):
            raise NumericsError("log_prob: an ODE step (std 0) has no density")
        z = ((x.to(self.mean.dtype) - self.mean) / self._wide(self.std)).flatten(1)
        return -0.5 * z.square().mean(1) - self.std.log() - 0.5 * math.log(2 * math.pi)

    def kl(self, other: "Gaussian") -> Tensor:
        """KL to a Gaussian of the same std `[M]`, averaged over the dimensions: mean((μ-μ')²) / (2 s²)."""
        gap = ((self.mean - other.mean) / self._wide(self.std)).flatten(1)
        return 0.5 * gap.square().mean(1)

    def _wide(self, row: Tensor) -> Tensor:
        return row.view(-1, *(1,) * (self.mean.dim() - 1))


@dataclass(frozen=True)
class Table:
    """A kernel on a schedule: for each step the factors of the state and of the prediction, and the std."""

    state: Tensor  # [T] float64, a_i
    prediction: Tensor  # [T] float64, b_i
    std: Tensor  # [T] float64, s_i

    def gaussian(self, x: Tensor, prediction: Tensor, step: Tensor) -> Gaussian:
        """The distribution of the next latent for states `x` `[M, ...]` at integer steps `[M]`, float32 or better."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide = (-1, *(1,) * (x.dim() - 1))
        index = step.cpu()
        a, b, std = (
            row[index].to(x.device, dtype) for row in (self.state, self.prediction, self.std)
        )
        return Gaussian(a.view(wide) * x.to(dtype) + b.view(wide) * prediction.to(dtype), std)


class Kernel(ABC):
    """How one reverse step is taken; a plug-in is a frozen dataclass whose fields come from `kernel.*`."""

    @abstractmethod
    def table(self, schedule: Schedule) -> Table:
        """The factors and stds of every step of that schedule, in float64."""


@dataclass(frozen=True)
class ODE(Kernel):
    """The deterministic step: Euler's, x' = x - Δ v, on a flow; DDIM's with η = 0 on a diffusion model."""

    def table(self, schedule: Schedule) -> Table:
        return _renoise(schedule, torch.zeros(schedule.steps, dtype=torch.float64))


@dataclass(frozen=True)
class DDIM(Kernel):
    """DDIM with noise (arXiv 2010.02502 Eq. 12 and 16); `noise` is η: 0 is the ODE, 1 as much as DDPM's posterior.

    s² = η² (n'²/n²) (n² - (a/a')² n'²) for signal a and noise n, which is the published form where a² + n² = 1.
    """

    noise: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise ValueError(
                f"kernel.noise: expected a number in [0, 1] for ddim, got {self.noise}"
            )

    def table(self, schedule: Schedule) -> Table:
        signal, noise = schedule.signal, schedule.noise
        fresh = noise[:-1].square() - (signal[:-1] / signal[1:]).square() * noise[1:].square()
        return _renoise(schedule, self.noise * noise[1:] / noise[:-1] * fresh.clamp(min=0).sqrt())


@dataclass(frozen=True)
class FlowSDE(Kernel):
    """Flow-GRPO's SDE (arXiv 2505.05470 Eq. 9): diffusion a sqrt(σ/(1-σ)); `noise` is a."""

    noise: float = 0.7

    def table(self, schedule: Schedule) -> Table:
        flow = _flow("flow-sde", schedule)
        sigma = flow.sigma[:-1]
        gap = 1 - sigma
        gap = torch.where(gap < _NEAR_ONE, 1 - flow.sigma[1:], gap)
        return _sde(flow, self.noise * torch.sqrt(sigma / gap))


@dataclass(frozen=True)
class DanceSDE(Kernel):
    """DanceGRPO's SDE (arXiv 2505.07818): a constant diffusion; `noise` is η."""

    noise: float = 0.3

    def table(self, schedule: Schedule) -> Table:
        flow = _flow("dance-sde", schedule)
        return _sde(flow, torch.full_like(flow.sigma[:-1], self.noise))


@dataclass(frozen=True)
class CPS(Kernel):
    """Coefficients-preserving sampling (arXiv 2509.05952): s = σ' sin(aπ/2); `noise` is a in (0, 1].

    It does not preserve the ODE's marginals: with many steps a Gaussian loses sin²(aπ/4) of its variance, 35 % at 0.8.
    """

    noise: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise ValueError(f"kernel.noise: expected a number in [0, 1] for cps, got {self.noise}")

    def table(self, schedule: Schedule) -> Table:
        return _renoise(schedule, schedule.noise[1:] * math.sin(self.noise * math.pi / 2))


def refuse_unsound(table: Table, schedule: Schedule, stochastic: tuple[bool, ...]) -> None:
    """`NumericsError` when a step that is to be sampled has a std outside [e^-5, e^2], or overshoots (factor < 0)."""
    for step, (std, sampled) in enumerate(zip(table.std.tolist(), stochastic, strict=True)):
        if sampled and not STD_FLOOR <= std <= STD_CEILING:
            raise NumericsError(
                f"kernel: step {step} (sigma {float(schedule.noise[step]):.6g}) has std {std:.6g}, outside "
                f"[{STD_FLOOR:.4g}, {STD_CEILING:.4g}]; move the window or change kernel.noise"
            )
        if sampled and float(table.state[step]) < 0:
            raise NumericsError(
                f"kernel: step {step} (sigma {float(schedule.noise[step]):.6g}) overshoots: it multiplies the "
                f"latent by {float(table.state[step]):.3g}; lower kernel.noise"
            )


def _renoise(schedule: Schedule, std: Tensor) -> Table:
    # x' = a' x̂₀ + sqrt(n'² - s²) ε̂ + s z: the implied sample, re-noised to the next level
    split, signal = schedule.split(), schedule.signal[1:]
    kept = (schedule.noise[1:].square() - std.square()).clamp(min=0).sqrt()
    state, prediction = (
        signal * a + kept * c for a, c in zip(split.sample, split.noise, strict=True)
    )
    return Table(state, prediction, std)


def _flow(name: str, schedule: Schedule) -> Flow:
    if not isinstance(schedule, Flow):
        raise InputError(
            f"kernel.name: {name} is for rectified flows, and this is a diffusion model; use ddim"
        )
    return schedule


def _sde(schedule: Flow, diffusion: Tensor) -> Table:
    # mean = x - Δ [v + g²/(2σ) (x + (1-σ) v)], std = g sqrt(Δ): the flow's drift plus the score term of Song et al.
    sigma, delta = schedule.sigma[:-1], -schedule.sigma.diff()
    pull = diffusion.square() * delta / (2 * sigma)
    return Table(1 - pull, -delta - pull * (1 - sigma), diffusion * delta.sqrt())
