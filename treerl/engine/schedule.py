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

    @abstractmethod
    def implied(self) -> Implied:
        """What the network's prediction says about sample and noise, step by step."""

    def denoised(self, x: Tensor, prediction: Tensor, step: Tensor) -> Tensor:
        """x̂₀ `[M, ...]` of latents `x` and predictions `[M, ...]` at integer steps `[M]`."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        index = step.cpu()
        rows = (-1, *(1,) * (x.dim() - 1))
        a, b = self.implied().x0
        a = a[index].to(x.device, dtype).view(rows)
        b = b[index].to(x.device, dtype).view(rows)
        return a * x.to(dtype) + b * prediction.to(dtype)

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

    def implied(self) -> Implied:
        sigma = self.sigma[:-1]
        one = torch.ones_like(sigma)
        return Implied(x0=(one, -sigma), eps=(one, 1 - sigma))


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

    def implied(self) -> Implied:
        signal = self.signal[:-1]
        noise = self.noise[:-1]
        if self.predicts == "v":
            return Implied(x0=(signal, -noise), eps=(noise, signal))
        eps = (torch.zeros_like(signal), torch.ones_like(signal))
        return Implied(x0=(1 / signal, -noise / signal), eps=eps)
