"""TempFlow-GRPO: steps count by the noise that they add."""

from dataclasses import dataclass

from treerl.engine.objective import Clipping, Edges, Loss, kernel_steps
from treerl.engine.policy import Policy


@dataclass(frozen=True)
class NoiseAware(Clipping):
    """The clipped surrogate times the step's std, in units of the mean step's (arXiv 2508.04324).

    A log-probability's slope grows as the std falls: unweighted, late steps that hardly explore
    would move the policy most. The mean is taken over all steps but the last, which is not sampled.
    """

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        std = kernel_steps(edges, self).std
        weight = std / std[:-1].mean()
        return self.surrogate(policy, edges, weight[edges.step.cpu()].to(edges.x.device))
