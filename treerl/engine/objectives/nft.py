"""DiffusionNFT: two policies implied by one network, told apart on noised samples."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from treerl.engine.objective import LeafObjective, Leaves, Loss

_LEAST = 1e-5  # of an error that divides


@dataclass(frozen=True)
class NFT(LeafObjective):
    """Negative-aware fine-tuning on the forward process (arXiv 2509.16117).

    c/β [r |x⁺ - x₀|² + (1 - r) |x⁻ - x₀|²] with x± = old ± β (x̂₀ - old) and
    r = ½ + ½ clip(A / c, -1, 1), where c is `saturation`. `adaptive` divides each square by the
    mean absolute error of its own x±, as the released code does. For a flow this is its loss on
    velocities, as x̂₀ = x - σ v. The old policy is the one that drew the samples.
    """

    beta: Annotated[float, Gt(0)] = 1.0  # β, how far the implied policies stand apart
    saturation: Annotated[float, Gt(0)] = 5.0  # c, the advantage that is wholly good
    adaptive: bool = True

    @property
    def weight_set(self) -> str | None:
        return "old"

    def __call__(self, denoised: Tensor, leaves: Leaves) -> Loss:
        assert leaves.reference is not None
        old = leaves.reference.to(denoised)
        move = self.beta * (denoised - old)
        x0 = leaves.x0.to(denoised)
        advantage = leaves.advantage.to(denoised)
        good = 0.5 + 0.5 * (advantage / self.saturation).clamp(-1, 1)
        value = good * self._error(old + move - x0) + (1 - good) * self._error(old - move - x0)
        ones = torch.ones_like(good)
        return Loss(value * self.saturation / self.beta, ones, torch.zeros_like(ones).bool())

    def _error(self, gap: Tensor) -> Tensor:
        """The square of each row, a mean over dimensions `[B]`."""
        square = gap.flatten(1).square().mean(1)
        if not self.adaptive:
            return square
        return square / gap.detach().flatten(1).abs().mean(1).clamp(min=_LEAST)
