"""GRPO-Guard: a ratio that is centred, and comparable from step to step."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Lt

from treerl.engine.objective import EdgeObjective, Edges, Loss, clip, gaussian
from treerl.engine.policy import Policy


@dataclass(frozen=True)
class Guard(EdgeObjective):
    """The clipped surrogate on GRPO-Guard's RatioNorm (arXiv 2510.22319).

    log ρ = s (log π - log π_old + mean(d²) / (2 s²)) of the move d = μ - μ_old, which is
    mean(z d) of the rollout's noise z: its mean is 0 and the step's std is not in it. With
    `reweight` the loss is divided by the step's Δ, so that its gradient is as large at every step.
    """

    clip_range: Annotated[float, Gt(0), Lt(1)] = 2e-6  # ε, on this ratio and on no other
    reweight: bool = True

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        step = gaussian(policy, self)
        moved = step.mean - edges.rollout(step).mean
        ratio = (moved * edges.noise.to(moved)).flatten(1).mean(1).exp()
        loss = clip(ratio, edges.advantage.to(ratio), self.clip_range)
        if not self.reweight:
            return loss
        return Loss(loss.value / edges.delta.to(ratio), loss.ratio, loss.clipped)
