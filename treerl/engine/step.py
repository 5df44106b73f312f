"""What one iteration of training did."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from treerl.engine.advantage import Advantages
from treerl.engine.task import Samples
from treerl.engine.tree import Tree


@dataclass(frozen=True)
class Step:
    """What one iteration did."""

    iteration: int  # 0, 1, ...
    tree: Tree
    tasks: tuple[Any, ...]  # row p of `tree.task` means `tasks[p]`
    samples: Samples  # [L] of the leaves that this process grew: `tree.here(tree.leaves)`
    scores: Tensor  # [N, K] float64, NaN at nodes that were not scored
    advantages: Advantages
    metrics: dict[str, Any]
