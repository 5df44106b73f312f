"""Kernels: one reverse step as a Gaussian, the same numbers for sampler and scorer.

x' ~ N(a_i x + b_i p, s_i²), where p is the network's prediction. Of a rectified flow it is the
velocity v = ε - x₀, with x_σ = (1-σ) x₀ + σ ε, σ falling from 1 (noise) to 0 (sample),
Δ_i = σ_i - σ_{i+1}; of a diffusion model it is ε or v (schedule.py).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Interval, Le
from torch import Tensor

from treerl.engine.policy import Gaussian
from treerl.engine.schedule import Flow, Schedule, mixed
from treerl.errors import InputError, NumericsError

# a density narrower or wider than this cannot be scored soundly
STD_FLOOR = math.exp(-5)
STD_CEILING = math.exp(2)
_NEAR_ONE = 1e-3  # within this of σ = 1, 1/(1-σ) is taken at the next σ, as Flow-GRPO does at σ = 1

NoiseLevel = Annotated[float, Gt(0), Le(10)]
Share = Annotated[float, Interval(ge=0, le=1)]


@dataclass(frozen=True)
class Coefficients:
    """A kernel on a schedule: three numbers a step."""

    state: Tensor  # [T] float64, a_i, the factor of the state
    prediction: Tensor  # [T] float64, b_i, the factor of the prediction
    std: Tensor  # [T] float64, s_i

    def gaussian(self, x: Tensor, prediction: Tensor, step: Tensor) -> Gaussian:
        """The next latent's distribution for `x` `[M, ...]` at integer steps `[M]`, >= float32."""
        index = step.cpu()
        mean = mixed(x, prediction, self.state[index], self.prediction[index])
        return Gaussian(mean, self.std[index].to(mean.dtype).to(x.device, non_blocking=True))


class Kernel(ABC):
    """How one reverse step is taken; a plug-in is a frozen dataclass of its parameters.

    coefficients = FlowSDE(noise_level=0.7).coefficients(Flow.linear(10))
    policy = coefficients.gaussian(x, velocity, step)  # of the next latents `[M, ...]`
    """

    @abstractmethod
    def coefficients(self, schedule: Schedule) -> Coefficients:
        """The factors and stds of every step of that schedule, in float64."""


@dataclass(frozen=True)
class ODE(Kernel):
    """The deterministic step: Euler's, x' = x - Δ v, on a flow; DDIM's with η = 0 elsewhere.

    Its stds `[T]` are 0, so that its policy has a mode and no density.
    """

    def coefficients(self, schedule: Schedule) -> Coefficients:
        return _ddim_step(schedule, torch.zeros(schedule.steps, dtype=torch.float64))


@dataclass(frozen=True)
class DDIM(Kernel):
    """DDIM with noise (arXiv 2010.02502 Eq. 12 and 16); `noise_level` is η.

    0 is the ODE, 1 as much noise as DDPM's posterior: s² = η² (n'²/n²) (n² - (a/a')² n'²) for
    signal a and noise n, which is the published form where a² + n² = 1.
    """

    noise_level: Share = 1.0  # η

    def coefficients(self, schedule: Schedule) -> Coefficients:
        signal = schedule.signal
        noise = schedule.noise
        fresh = noise[:-1].square() - (signal[:-1] / signal[1:]).square() * noise[1:].square()
        std = self.noise_level * noise[1:] / noise[:-1] * fresh.clamp(min=0).sqrt()
        return _ddim_step(schedule, std)


@dataclass(frozen=True)
class FlowSDE(Kernel):
    """Flow-GRPO's SDE (arXiv 2505.05470 Eq. 9): diffusion a sqrt(σ/(1-σ)); `noise_level` is a."""

    noise_level: NoiseLevel = 0.7  # a

    def coefficients(self, schedule: Schedule) -> Coefficients:
        flow = _flow("flow-sde", schedule)
        sigma = flow.sigma[:-1]
        gap = 1 - sigma
        gap = torch.where(gap < _NEAR_ONE, 1 - flow.sigma[1:], gap)
        return _sde(flow, self.noise_level * torch.sqrt(sigma / gap))


@dataclass(frozen=True)
class DanceSDE(Kernel):
    """DanceGRPO's SDE (arXiv 2505.07818): a constant diffusion."""

    noise_level: NoiseLevel = 0.3  # η

    def coefficients(self, schedule: Schedule) -> Coefficients:
        flow = _flow("dance-sde", schedule)
        return _sde(flow, torch.full_like(flow.sigma[:-1], self.noise_level))


@dataclass(frozen=True)
class CPS(Kernel):
    """Coefficients-preserving sampling (arXiv 2509.05952): s = σ' sin(aπ/2).

    It does not preserve the ODE's marginals: with many steps a Gaussian loses sin²(aπ/4) of its
    variance, 35 % at 0.8.
    """

    noise_level: Share = 0.8  # a

    def coefficients(self, schedule: Schedule) -> Coefficients:
        return _ddim_step(schedule, schedule.noise[1:] * math.sin(self.noise_level * math.pi / 2))


def validate_stds(
    coefficients: Coefficients, schedule: Schedule, stochastic: tuple[bool, ...]
) -> None:
    """`NumericsError` when a sampled step's std is outside [e^-5, e^2] or it overshoots (a < 0)."""
    for step, sampled in enumerate(stochastic):
        std = float(coefficients.std[step])
        factor = float(coefficients.state[step])
        where = f"kernel: step {step} (sigma {float(schedule.noise[step]):.6g})"
        if sampled and not STD_FLOOR <= std <= STD_CEILING:
            raise NumericsError(
                f"{where} has std {std:.6g}, outside [{STD_FLOOR:.4g}, {STD_CEILING:.4g}]; "
                "move the window or change kernel.noise_level"
            )
        if sampled and factor < 0:
            raise NumericsError(
                f"{where} overshoots: it multiplies the latent by {factor:.3g}; "
                "lower kernel.noise_level"
            )


def _ddim_step(schedule: Schedule, std: Tensor) -> Coefficients:
    # x' = a' x̂₀ + sqrt(n'² - s²) ε̂ + s z: the implied sample, re-noised to the next level
    implied = schedule.implied()
    signal = schedule.signal[1:]
    kept = (schedule.noise[1:].square() - std.square()).clamp(min=0).sqrt()
    state = signal * implied.x0[0] + kept * implied.eps[0]
    prediction = signal * implied.x0[1] + kept * implied.eps[1]
    return Coefficients(state, prediction, std)


def _flow(name: str, schedule: Schedule) -> Flow:
    if not isinstance(schedule, Flow):
        raise InputError(
            f"kernel.name: {name} is for rectified flows, and this is a diffusion model; use ddim"
        )
    return schedule


def _sde(schedule: Flow, diffusion: Tensor) -> Coefficients:
    # mean = x - Δ [v + g²/(2σ) (x + (1-σ) v)], std = g sqrt(Δ): the flow's drift and a score term
    sigma = schedule.sigma[:-1]
    delta = -schedule.sigma.diff()
    pull = diffusion.square() * delta / (2 * sigma)
    return Coefficients(1 - pull, -delta - pull * (1 - sigma), diffusion * delta.sqrt())
