"""What one iteration of training did."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from treerl.engine.advantage import Advantages
from treerl.engine.env import Env
from treerl.engine.task import Samples
from treerl.engine.tree import Tree


@dataclass(frozen=True)
class Step:
    """What one iteration did."""

    iteration: int  # 0, 1, ...
    env: Env  # over the iteration's tasks
    tree: Tree
    scores: Tensor  # [N, K] float64, NaN at nodes that were not scored
    advantages: Advantages
    trained: Tensor  # [N] bool: edges by the nodes they lead to; leaves where the loss is on them
    metrics: dict[str, Any]

    @property
    def tasks(self) -> tuple[Any, ...]:
        """Row p of `tree.task` means `tasks[p]`."""
        return self.env.tasks

    def samples(self, leaves: Tensor) -> Samples:
        """Some leaves, finished once more: what an iteration made is not kept.

        They are of those that this process grew, `tree.here(tree.leaves)`.
        """
        return self.env.samples(self.tree.at(leaves))
