"""Flow-DPPO: a trust region by the exact divergence of a step in place of a clipped ratio."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt

from treerl.engine.objective import EdgeObjective, Edges, Loss, gaussian
from treerl.engine.policy import Policy


@dataclass(frozen=True)
class DPPO(EdgeObjective):
    """-ρ A, without a gradient where the step has left its rollout outwards (arXiv 2606.11025).

    An edge is masked where KL(π ‖ π_old) = mean((μ - μ_old)²) / (2 s²) exceeds `radius` and its
    ratio has already moved the way its advantage pushes; what brings it back stays.
    """

    radius: Annotated[float, Gt(0)] = 1e-5  # a mean over dimensions
    kl: Annotated[float, Ge(0)] = 0.0  # weight of the KL to the model as training started

    @property
    def weight_set(self) -> str | None:
        return "start" if self.kl > 0 else None

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        step = gaussian(policy, self)
        log_prob = step.log_prob(edges.x)
        ratio = (log_prob - edges.log_prob.to(log_prob)).exp()
        advantage = edges.advantage.to(ratio)
        far = step.kl(edges.rollout(step)) > self.radius
        outwards = (ratio - 1) * advantage > 0
        masked = (far & outwards).detach()
        value = torch.where(masked, 0.0, -advantage * ratio)
        if edges.reference is not None and self.kl > 0:
            value = value + self.kl * policy.kl(edges.reference)
        return Loss(value, ratio.detach(), masked)
