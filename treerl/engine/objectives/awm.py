"""Advantage-weighted matching: the loss of pre-training, times the advantage."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from treerl.engine.objective import LeafObjective, Leaves, Loss


@dataclass(frozen=True)
class AWM(LeafObjective):
    """A |v - (ε - x₀)|² + kl |v - v_ref|², means over dimensions (arXiv 2509.25050).

    The gradient at ratio 1 of PPO's loss with log π(x₀) = -|v - (ε - x₀)|². The velocity's error is
    (x₀ - x̂₀) / σ, for flows and for v-prediction alike. Without `kl` bad samples push without end.
    """

    kl: Annotated[float, Ge(0)] = 0.1  # weight of the pull to the anchor
    anchor: Literal["start", "ema", "teacher"] = "start"  # the weights that it pulls to

    @property
    def weight_set(self) -> str | None:
        return self.anchor if self.kl > 0 else None

    def __call__(self, denoised: Tensor, leaves: Leaves) -> Loss:
        variance = leaves.sigma.to(denoised).square()
        error = (denoised - leaves.x0.to(denoised)).flatten(1).square().mean(1) / variance
        value = leaves.advantage.to(error) * error
        if leaves.reference is not None and self.kl > 0:
            pull = (denoised - leaves.reference.to(denoised)).flatten(1).square().mean(1)
            value = value + self.kl * pull / variance
        ones = torch.ones_like(error).detach()
        return Loss(value, ones, torch.zeros_like(ones).bool())
