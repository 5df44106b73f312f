"""Losses: how far to move the policy, given advantages of edges or of leaves."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from treerl.engine.component import Component
from treerl.engine.kernel import Coefficients
from treerl.engine.policy import Draws, Gaussian, Policy
from treerl.errors import InputError


@dataclass(frozen=True)
class Edges:
    """Stored edges of a minibatch, as they were taken."""

    x: Tensor  # [E, ...] the child latents, exactly as stored
    log_prob: Tensor  # [E] under the policy that took them, mean over dimensions
    advantage: Tensor  # [E]
    step: Tensor  # [E] int64, steps that the parent has taken
    sigma: Tensor  # [E] noise level of the parent, 1 at the start
    delta: Tensor  # [E] how far the noise level falls on the edge
    task: Tensor  # [E] int64, row of the task
    draws: Draws  # the random numbers that the rollout drew for these edges
    reference: Policy | None  # at the parents, under the weights that the objective asks for
    coefficients: Coefficients | None  # of all T sampled steps; None where no kernel takes them

    @cached_property
    def noise(self) -> Tensor:
        """The rollout's standard normal draws z `[E, ...]`, made again from the nodes' keys."""
        return self.draws.normal(tuple(self.x.shape[1:]), torch.float32)

    def rollout(self, policy: Gaussian) -> Gaussian:
        """The Gaussian that took these edges: `policy`'s std round x - std · z.

        Its std is a number of the kernel and does not move with the weights. The mean is exact up
        to the rounding of the stored x.
        """
        std = policy.std.view(-1, *(1,) * (self.x.dim() - 1))
        return Gaussian(self.x.to(policy.mean.dtype) - std * self.noise.to(policy.mean), policy.std)


@dataclass(frozen=True)
class Leaves:
    """Finished samples of a minibatch, noised again to a step of the schedule."""

    x0: Tensor  # [B, ...] the samples
    x: Tensor  # [B, ...] the same at the noise level of `step`
    eps: Tensor  # [B, ...] the noise that was mixed in
    advantage: Tensor  # [B] of the leaf
    step: Tensor  # [B] int64
    sigma: Tensor  # [B] noise level, 1 at the start
    task: Tensor  # [B] int64, row of the task
    reference: Tensor | None  # [B, ...] x̂₀ under the weights that the objective asks for

    def first(self, count: int) -> "Leaves":
        """The first `count` leaves: without what fills a minibatch up."""
        return Leaves(
            x0=self.x0[:count],
            x=self.x[:count],
            eps=self.eps[:count],
            advantage=self.advantage[:count],
            step=self.step[:count],
            sigma=self.sigma[:count],
            task=self.task[:count],
            reference=None if self.reference is None else self.reference[:count],
        )


@dataclass(frozen=True)
class Loss:
    """The loss of each edge or leaf, and what is worth logging of it."""

    value: Tensor  # [E], to be summed under the plan's weights
    ratio: Tensor  # [E] detached, π(edge) / π_old(edge) per dimension; 1 where a loss has no ratio
    clipped: Tensor  # [E] bool, edges whose gradient the clip has cut


class Objective(Component):
    """What an update minimises; subclass `EdgeObjective` or `LeafObjective`."""

    @property
    def weight_set(self) -> str | None:
        """The weights under which the policy is evaluated beside its own (one forward more).

        "start" are those that training began with, "old" those that grew the trees, "ema" their
        moving average; a trainer may be given others by name. None is none.
        """
        return None


class EdgeObjective(Objective, ABC):
    """A loss on sampled edges; a plug-in is a dataclass of its parameters."""

    @abstractmethod
    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        """The loss of each edge under `policy`, the distribution at its parent `[E]`."""


class LeafObjective(Objective, ABC):
    """A loss on leaves that needs no density: forward-process methods such as NFT and AWM."""

    @abstractmethod
    def __call__(self, denoised: Tensor, leaves: Leaves) -> Loss:
        """The loss of each leaf, of the policy's x̂₀ `[B, ...]` at the noised leaves."""


@dataclass(frozen=True)
class Clipping(EdgeObjective, ABC):
    """What the objectives that clip the density ratio have in common: two numbers.

    The ratio is the D-th root of that of the densities, since log-probs are means over D
    dimensions, which is why the range is as small as 1e-4. Of a small D take more:
    `Clipped(clip_range=0.1)` for a flow on the plane.
    """

    clip_range: Annotated[float, Gt(0), Lt(1)] = 1e-4  # ε, on the ratio per dimension
    kl: Annotated[float, Ge(0)] = 0.0  # weight of the KL to the anchor
    anchor: Literal["start", "ema", "teacher"] = "start"  # the weights that the KL is to

    @property
    def weight_set(self) -> str | None:
        return self.anchor if self.kl > 0 else None

    def surrogate(self, policy: Policy, edges: Edges, weight: Tensor | None = None) -> Loss:
        """-w min(ρ A, clip(ρ, 1-ε, 1+ε) A) + kl · KL(π ‖ π_ref) of each edge `[E]`."""
        log_prob = policy.log_prob(edges.x)
        ratio = (log_prob - edges.log_prob.to(log_prob.dtype)).exp()
        loss = clip(ratio, edges.advantage.to(ratio.dtype), self.clip_range)
        value = loss.value
        if weight is not None:
            value = value * weight.to(value)
        if edges.reference is not None and self.kl > 0:
            value = value + self.kl * policy.kl(edges.reference)
        return Loss(value, loss.ratio, loss.clipped)


@dataclass(frozen=True)
class Clipped(Clipping):
    """PPO's clipped surrogate on edges (arXiv 2512.08153 Eq. 12), with a KL to the reference."""

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        return self.surrogate(policy, edges)


def clip(ratio: Tensor, advantage: Tensor, clip_range: float) -> Loss:
    """PPO's max(-A ρ, -A clip(ρ, 1-ε, 1+ε)) of ratios and advantages `[E]`."""
    low = 1 - clip_range
    high = 1 + clip_range
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(low, high))
    above = (ratio > high) & (advantage > 0)
    below = (ratio < low) & (advantage < 0)
    return Loss(loss, ratio.detach(), (above | below).detach())


def gaussian(policy: Policy, objective: Objective) -> Gaussian:
    """The policy, of an objective that can read nothing but Gaussians."""
    if not isinstance(policy, Gaussian):
        name = type(objective).__name__
        got = type(policy).__name__
        raise InputError(f"objective: {name} reads means and stds of Gaussian steps, got {got}")
    return policy


def kernel_steps(edges: Edges, objective: Objective) -> Coefficients:
    """The kernel's numbers of every step, of an objective that compares steps with each other."""
    if edges.coefficients is None:
        name = type(objective).__name__
        raise InputError(f"objective: {name} compares steps, and env.step_coefficients is None")
    return edges.coefficients
