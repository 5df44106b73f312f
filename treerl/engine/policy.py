"""What the engine needs of a policy: a distribution over next states, sampled by counted noise."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from treerl.engine import noise
from treerl.errors import NumericsError


class Draws(Protocol):
    """The random numbers of M edges."""

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal draws `[M, *shape]`; the same again at every call."""

    def uniform(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform draws in [0, 1) `[M, *shape]`; the same again at every call."""


@dataclass(frozen=True)
class KeyedDraws(Draws):
    """Each edge's draws are a function of its node's key, and of nothing else."""

    keys: noise.Keys  # [M]
    device: torch.device | str = "cpu"

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return noise.normal(self.keys, shape, dtype, self.device)

    def uniform(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return noise.uniform(self.keys, shape, dtype, self.device)


class Policy(ABC):
    """A distribution over the next state of M processes."""

    @property
    @abstractmethod
    def mode(self) -> Tensor:
        """What a deterministic step takes `[M, ...]`."""

    @abstractmethod
    def take(self, index: Tensor) -> Self:
        """The rows `index` `[E]`; siblings take their parent's row."""

    @abstractmethod
    def sample(self, draws: Draws, dtype: torch.dtype) -> Tensor:
        """A draw `[M, ...]` in the storage `dtype`: what is scored is exactly what is stored."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """The log-probability `[M]` of next states `x` `[M, ...]`, a mean over dimensions."""

    @abstractmethod
    def kl(self, other: Self) -> Tensor:
        """KL(self || other) `[M]`, in the unit of `log_prob`."""

    @property
    def denoised(self) -> Tensor | None:
        """The finished sample x̂₀ `[M, ...]` that the network expects; None if it says nothing."""
        return None


@dataclass(frozen=True)
class Gaussian(Policy):
    """A diagonal Gaussian over the next latent; std 0 is the point mass of an ODE step."""

    mean: Tensor  # [M, ...] float32 or better
    std: Tensor  # [M]
    x0: Tensor | None = None  # [M, ...] the sample that the network's prediction implies

    @property
    def mode(self) -> Tensor:
        return self.mean

    @property
    def denoised(self) -> Tensor | None:
        return self.x0

    def take(self, index: Tensor) -> "Gaussian":
        x0 = None if self.x0 is None else self.x0[index]
        return Gaussian(self.mean[index], self.std[index], x0)

    def sample(self, draws: Draws, dtype: torch.dtype) -> Tensor:
        """mean + std · z, rounded to the storage `dtype`."""
        z = draws.normal(tuple(self.mean.shape[1:]), self.mean.dtype)
        return (self.mean + self._broadcast(self.std) * z).to(dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x; mean, std²), divided by D (Flow-GRPO's convention, arXiv 2505.05470)."""
        if bool((self.std <= 0).any()):
            raise NumericsError("log_prob: an ODE step (std 0) has no density")
        z = ((x.to(self.mean.dtype) - self.mean) / self._broadcast(self.std)).flatten(1)
        return -0.5 * z.square().mean(1) - self.std.log() - 0.5 * math.log(2 * math.pi)

    def kl(self, other: "Gaussian") -> Tensor:
        """KL to a Gaussian of the same std, divided by D: mean((μ-μ')²) / (2 s²)."""
        gap = ((self.mean - other.mean) / self._broadcast(self.std)).flatten(1)
        return 0.5 * gap.square().mean(1)

    def _broadcast(self, row: Tensor) -> Tensor:
        return row.view(-1, *(1,) * (self.mean.dim() - 1))
