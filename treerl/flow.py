"""Kernels: one reverse step as a Gaussian, x' ~ N(a_i x + b_i v, s_i²), the same numbers for sampler and scorer.

Conventions (rectified flow): x_σ = (1-σ) x₀ + σ ε, v = ε - x₀, σ falls from 1 (noise) to 0 (sample),
Δ_i = σ_i - σ_{i+1}.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.errors import NumericsError

STD_FLOOR, STD_CEILING = math.exp(-5), math.exp(2)  # a density narrower or wider than this cannot be scored soundly
_NEAR_ONE = 1e-3  # within this of σ = 1 the factor 1/(1-σ) is taken at the next σ, as Flow-GRPO does at σ = 1


@dataclass(frozen=True)
class Schedule:
    """The noise levels of a sampler and what the network is told at each of them."""

    sigma: Tensor  # [T + 1] float64, strictly decreasing, 1 = pure noise
    time: Tensor  # [T] the time argument of the network, in the network's own unit

    def __post_init__(self) -> None:
        sigma = self.sigma
        if not bool(torch.isfinite(sigma).all()) or float(sigma[0]) > 1 or float(sigma[-1]) < 0:
            raise NumericsError(f"schedule: expected finite sigmas in [0, 1], got {sigma.tolist()}")
        if bool((sigma.diff() >= 0).any()):
            raise NumericsError(f"schedule: expected strictly decreasing sigmas, got {sigma.tolist()}")

    @property
    def steps(self) -> int:
        return len(self.time)


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
        a, b, std = (row[index].to(x.device, dtype) for row in (self.state, self.prediction, self.std))
        return Gaussian(a.view(wide) * x.to(dtype) + b.view(wide) * prediction.to(dtype), std)


class Kernel(ABC):
    """How one reverse step is taken; a plug-in is a frozen dataclass whose fields come from `kernel.*`."""

    @abstractmethod
    def table(self, schedule: Schedule) -> Table:
        """The factors and stds of every step of that schedule, in float64."""


@dataclass(frozen=True)
class ODE(Kernel):
    """The deterministic Euler step, x' = x - Δ v."""

    def table(self, schedule: Schedule) -> Table:
        delta = -schedule.sigma.diff()
        return Table(torch.ones_like(delta), -delta, torch.zeros_like(delta))


@dataclass(frozen=True)
class FlowSDE(Kernel):
    """Flow-GRPO's SDE (arXiv 2505.05470 Eq. 9): diffusion a sqrt(σ/(1-σ)); `noise` is a."""

    noise: float = 0.7

    def table(self, schedule: Schedule) -> Table:
        sigma = schedule.sigma[:-1]
        gap = 1 - sigma
        gap = torch.where(gap < _NEAR_ONE, 1 - schedule.sigma[1:], gap)
        return _sde(schedule, self.noise * torch.sqrt(sigma / gap))


@dataclass(frozen=True)
class DanceSDE(Kernel):
    """DanceGRPO's SDE (arXiv 2505.07818): a constant diffusion; `noise` is η."""

    noise: float = 0.3

    def table(self, schedule: Schedule) -> Table:
        return _sde(schedule, torch.full_like(schedule.sigma[:-1], self.noise))


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
        now, after = schedule.sigma[:-1], schedule.sigma[1:]
        kept = after * math.cos(self.noise * math.pi / 2)
        return Table(1 - after + kept, kept * (1 - now) - now * (1 - after), after * math.sin(self.noise * math.pi / 2))


def refuse_unsound(table: Table, schedule: Schedule, stochastic: tuple[bool, ...]) -> None:
    """`NumericsError` when a step that is to be sampled has a std outside [e^-5, e^2], or overshoots (factor < 0)."""
    for step, (std, sampled) in enumerate(zip(table.std.tolist(), stochastic, strict=True)):
        if sampled and not STD_FLOOR <= std <= STD_CEILING:
            raise NumericsError(
                f"kernel: step {step} (sigma {float(schedule.sigma[step]):.6g}) has std {std:.6g}, outside "
                f"[{STD_FLOOR:.4g}, {STD_CEILING:.4g}]; move the window or change kernel.noise"
            )
        if sampled and float(table.state[step]) < 0:
            raise NumericsError(
                f"kernel: step {step} (sigma {float(schedule.sigma[step]):.6g}) overshoots: it multiplies the "
                f"latent by {float(table.state[step]):.3g}; lower kernel.noise"
            )


def _sde(schedule: Schedule, diffusion: Tensor) -> Table:
    # mean = x - Δ [v + g²/(2σ) (x + (1-σ) v)], std = g sqrt(Δ): the flow's drift plus the score term of Song et al.
    sigma, delta = schedule.sigma[:-1], -schedule.sigma.diff()
    pull = diffusion.square() * delta / (2 * sigma)
    return Table(1 - pull, -delta - pull * (1 - sigma), diffusion * delta.sqrt())
