"""Schedules: how much sample and how much noise a latent holds, x = signal · x₀ + noise · ε."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from treerl.errors import NumericsError


@dataclass(frozen=True)
class Implied:
    """The sample and the noise that a prediction p implies: x₀ = a x + b p and ε = c x + d p."""

    x0: tuple[Tensor, Tensor]  # a, b, each [T] float64
    eps: tuple[Tensor, Tensor]  # c, d, each [T] float64


@dataclass(frozen=True)
class Schedule(ABC):
    """The steps of a sampler, and what the network is told and predicts at each of them."""

    time: Tensor  # [T] the time argument of the network, in the network's own unit

    @property
    def steps(self) -> int:
        """T."""
        return len(self.time)

    @property
    @abstractmethod
    def signal(self) -> Tensor:
        """The factor of the sample `[T + 1]`, float64."""

    @property
    @abstractmethod
    def noise(self) -> Tensor:
        """The factor of the noise `[T + 1]`, float64, falling."""

    @property
    @abstractmethod
    def scale(self) -> Tensor:
        """What a latent is divided by `[T + 1]`, float64, so that its paths become straight."""

    @property
    @abstractmethod
    def clock(self) -> Tensor:
        """The time `[T + 1]`, falling, in which `slope` is constant while x̂₀ and ε̂ are."""

    @abstractmethod
    def slope(self, x: Tensor, prediction: Tensor, step: Tensor) -> Tensor:
        """The direction `[M, ...]` of the deterministic path at integer steps `[M]`."""

    @abstractmethod
    def implied(self) -> Implied:
        """What the network's prediction says about sample and noise, step by step."""

    def denoised(self, x: Tensor, prediction: Tensor, step: Tensor) -> Tensor:
        """x̂₀ `[M, ...]` of latents `x` and predictions `[M, ...]` at integer steps `[M]`."""
        a, b = self.implied().x0
        return mixed(x, prediction, a[step.cpu()], b[step.cpu()])

    def move(self, x: Tensor, slope: Tensor, step: Tensor, stride: int) -> Tensor:
        """The latents `[M, ...]` after `stride` steps along straight lines of these slopes.

        Euler's step over σ on a flow, DDIM's elsewhere (arXiv 2010.02502 Eq. 13): x / scale moves
        by slope · Δclock.
        """
        now = step.cpu()
        later = now + stride
        factor = self.scale[later] / self.scale[now]
        shift = self.scale[later] * (self.clock[later] - self.clock[now])
        return mixed(x, slope, factor, shift)

    def lookback(self, step: Tensor, stride: int, before: int) -> float:
        """How much of the last change of slope a move of second order adds (Adams-Bashforth).

        Of a move of `stride` steps that follows one of `before` steps; all `step` `[M]` are equal.
        """
        now = int(step[0])
        ahead = self.clock[now + stride] - self.clock[now]
        behind = self.clock[now] - self.clock[now - before]
        return float(ahead / (2 * behind))

    def noised(self, x0: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        """The latents `[M, ...]` that samples `x0` and noise `eps` make at integer steps `[M]`."""
        index = step.cpu()
        rows = (-1, *(1,) * (x0.dim() - 1))
        signal = self.signal[index].to(x0.device, x0.dtype).view(rows)
        noise = self.noise[index].to(x0.device, x0.dtype).view(rows)
        return signal * x0 + noise * eps


@dataclass(frozen=True)
class Flow(Schedule):
    """Rectified flow: x_σ = (1-σ) x₀ + σ ε; the network predicts the velocity ε - x₀."""

    sigma: Tensor  # [T + 1] float64, strictly decreasing, 1 = pure noise

    def __post_init__(self) -> None:
        sigma = self.sigma
        if not bool(torch.isfinite(sigma).all()) or float(sigma[0]) > 1 or float(sigma[-1]) < 0:
            raise NumericsError(f"schedule: expected finite sigmas in [0, 1], got {sigma.tolist()}")
        if bool((sigma.diff() >= 0).any()):
            raise NumericsError(
                f"schedule: expected strictly decreasing sigmas, got {sigma.tolist()}"
            )

    @classmethod
    def linear(cls, steps: int) -> "Flow":
        """Even steps from noise to sample, for a network that is told sigma itself."""
        sigma = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return cls(time=sigma[:-1], sigma=sigma)

    @property
    def signal(self) -> Tensor:
        return 1 - self.sigma

    @property
    def noise(self) -> Tensor:
        return self.sigma

    @property
    def scale(self) -> Tensor:
        return torch.ones_like(self.sigma)

    @property
    def clock(self) -> Tensor:
        return self.sigma

    def slope(self, x: Tensor, prediction: Tensor, step: Tensor) -> Tensor:
        return prediction

    def implied(self) -> Implied:
        sigma = self.sigma[:-1]
        ones = torch.ones_like(sigma)
        return Implied(x0=(ones, -sigma), eps=(ones, 1 - sigma))


@dataclass(frozen=True)
class Diffusion(Schedule):
    """Variance preserving: x = √ᾱ x₀ + √(1-ᾱ) ε.

    The network predicts ε, or v = √ᾱ ε - √(1-ᾱ) x₀ (arXiv 2202.00512).
    """

    alpha_bar: Tensor  # [T + 1] float64, strictly increasing; 0 is pure noise
    predicts: Literal["noise", "v"] = "noise"

    def __post_init__(self) -> None:
        alpha = self.alpha_bar
        if not bool(torch.isfinite(alpha).all()) or float(alpha[0]) < 0 or float(alpha[-1]) > 1:
            raise NumericsError(f"schedule: expected finite alphas in [0, 1], got {alpha.tolist()}")
        if bool((alpha.diff() <= 0).any()):
            raise NumericsError(
                f"schedule: expected strictly increasing alphas, got {alpha.tolist()}"
            )
        if self.predicts == "noise" and float(alpha[0]) == 0:
            raise NumericsError(
                "schedule: at alpha 0 a prediction of the noise says nothing about the sample"
            )

    @property
    def signal(self) -> Tensor:
        return self.alpha_bar.sqrt()

    @property
    def noise(self) -> Tensor:
        return (1 - self.alpha_bar).sqrt()

    @property
    def scale(self) -> Tensor:
        return self.signal

    @property
    def clock(self) -> Tensor:
        return self.noise / self.signal

    def slope(self, x: Tensor, prediction: Tensor, step: Tensor) -> Tensor:
        """ε̂, whatever the network predicts."""
        c, d = self.implied().eps
        return mixed(x, prediction, c[step.cpu()], d[step.cpu()])

    def implied(self) -> Implied:
        signal = self.signal[:-1]
        noise = self.noise[:-1]
        if self.predicts == "v":
            return Implied(x0=(signal, -noise), eps=(noise, signal))
        eps = (torch.zeros_like(signal), torch.ones_like(signal))
        return Implied(x0=(1 / signal, -noise / signal), eps=eps)


def mixed(x: Tensor, other: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a x + b other `[M, ...]`, in float32 or better, of float64 factors `[M]`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    rows = (-1, *(1,) * (x.dim() - 1))
    a = a.to(dtype).to(x.device, non_blocking=True).view(rows)
    b = b.to(dtype).to(x.device, non_blocking=True).view(rows)
    return a * x.to(dtype) + b * other.to(dtype)
