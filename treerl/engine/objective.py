"""Losses on edges: how far to move the policy towards an edge, given its advantage."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.kernel import Gaussian


@dataclass(frozen=True)
class Edges:
    """Stored edges of a minibatch, as they were taken."""

    x: Tensor  # [E, ...] the child latents, exactly as stored
    log_prob: Tensor  # [E] under the policy that took them, mean over dimensions
    advantage: Tensor  # [E]
    reference: Gaussian | None  # the reference policy at the parents, when a KL term asks for it


@dataclass(frozen=True)
class Loss:
    """The loss of each edge, and what is worth logging of it."""

    value: Tensor  # [E], to be summed under the plan's weights
    ratio: Tensor  # [E] detached, π(edge) / π_old(edge), per dimension
    clipped: Tensor  # [E] bool, edges whose gradient the clip has cut


class Objective(ABC):
    """The loss on an edge; a plug-in is a frozen dataclass whose fields come from `objective.*`."""

    @abstractmethod
    def __call__(self, policy: Gaussian, edges: Edges) -> Loss:
        """The loss of each edge under `policy`, the distribution at its parent `[E]`."""


@dataclass(frozen=True)
class Clipped(Objective):
    """PPO's clipped surrogate on edges (arXiv 2512.08153 Eq. 12), with an optional KL to a reference policy.

    -min(ρ A, clip(ρ, 1-ε, 1+ε) A) + kl · KL(π ‖ π_ref); ρ is the D-th root of the density ratio, since log-probs are
    means over D dimensions, which is why ε is as small as 1e-4.
    """

    clip: float = 1e-4
    kl: float = 0.0

    def __call__(self, policy: Gaussian, edges: Edges) -> Loss:
        advantage = edges.advantage.to(policy.mean.dtype)
        ratio = (policy.log_prob(edges.x) - edges.log_prob.to(policy.mean.dtype)).exp()
        loss = torch.maximum(
            -advantage * ratio, -advantage * ratio.clamp(1 - self.clip, 1 + self.clip)
        )
        outward = torch.where(
            advantage > 0, ratio > 1 + self.clip, (ratio < 1 - self.clip) & (advantage < 0)
        )
        if edges.reference is not None:
            loss = loss + self.kl * policy.kl(edges.reference)
        return Loss(loss, ratio.detach(), outward.detach())
