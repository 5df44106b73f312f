"""Schedules: how much of the sample and how much noise a latent holds at each step, x = signal · x₀ + noise · ε."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from treerl.errors import NumericsError


@dataclass(frozen=True)
class Split:
    """The sample and the noise that a prediction p implies: x₀ = a x + b p and ε = c x + d p, each `[T]`."""

    sample: tuple[Tensor, Tensor]  # a, b
    noise: tuple[Tensor, Tensor]  # c, d


@dataclass(frozen=True)
class Schedule(ABC):
    """The steps of a sampler, and what the network is told and predicts at each of them."""

    time: Tensor  # [T] the time argument of the network, in the network's own unit

    @property
    def steps(self) -> int:
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
    def split(self) -> Split:
        """What the network's prediction says about sample and noise, step by step."""


@dataclass(frozen=True)
class Flow(Schedule):
    """Rectified flow: x_σ = (1-σ) x₀ + σ ε, and the network predicts the velocity ε - x₀."""

    sigma: Tensor  # [T + 1] float64, strictly decreasing, 1 = pure noise

    def __post_init__(self) -> None:
        sigma = self.sigma
        if not bool(torch.isfinite(sigma).all()) or float(sigma[0]) > 1 or float(sigma[-1]) < 0:
            raise NumericsError(f"schedule: expected finite sigmas in [0, 1], got {sigma.tolist()}")
        if bool((sigma.diff() >= 0).any()):
            raise NumericsError(
                f"schedule: expected strictly decreasing sigmas, got {sigma.tolist()}"
            )

    @property
    def signal(self) -> Tensor:
        return 1 - self.sigma

    @property
    def noise(self) -> Tensor:
        return self.sigma

    def split(self) -> Split:
        sigma = self.sigma[:-1]
        one = torch.ones_like(sigma)
        return Split(sample=(one, -sigma), noise=(one, 1 - sigma))


@dataclass(frozen=True)
class Diffusion(Schedule):
    """Variance preserving: x = √ᾱ x₀ + √(1-ᾱ) ε; the network predicts ε, or v = √ᾱ ε - √(1-ᾱ) x₀ (2202.00512)."""

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

    def split(self) -> Split:
        signal, noise = self.signal[:-1], self.noise[:-1]
        if self.predicts == "v":
            return Split(sample=(signal, -noise), noise=(noise, signal))
        return Split(
            sample=(1 / signal, -noise / signal),
            noise=(torch.zeros_like(signal), torch.ones_like(signal)),
        )
