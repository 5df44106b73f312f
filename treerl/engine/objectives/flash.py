"""Flash-GRPO: the slope of the log-probability taken out of the loss."""

from dataclasses import dataclass

from treerl.engine.objective import Clipping, Edges, Loss, kernel_steps
from treerl.engine.policy import Policy


@dataclass(frozen=True)
class Flash(Clipping):
    """The clipped surrogate divided by the slope of the step's log-prob (arXiv 2605.15980).

    A mean μ = a x + b v has d log π / dv = b z / s, whose scale |b| / s differs from step to step:
    √Δ/g + g √Δ (1-σ) / (2σ) of a diffusion g. The weight is s / |b|, with mean 1 over all steps but
    the last, which is not sampled.
    """

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        steps = kernel_steps(edges, self)
        rectified = steps.std[:-1] / steps.prediction[:-1].abs()
        weight = rectified / rectified.mean()
        return self.surrogate(policy, edges, weight[edges.step.cpu()].to(edges.x.device))
