"""Where the trees of a rollout start."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from treerl.engine import noise


@dataclass(frozen=True)
class Roots:
    """Where the trees of a rollout start."""

    task: Tensor  # [R] int64, row of the task
    key: noise.Keys  # [R] noise key of the tree
    start: noise.Keys  # [R] key of the initial latent; equal keys start from equal noise

    def __len__(self) -> int:
        return len(self.key)

    def part(self, share: range) -> "Roots":
        """The roots of a contiguous share."""
        rows = slice(share.start, share.stop)
        return Roots(self.task[rows], self.key[rows], self.start[rows])


def make_roots(tasks: Sequence[noise.Keys], trees: int, shared_noise: bool = False) -> Roots:
    """`trees` roots for each task's key `[1]`; `shared_noise` starts a task's from one noise."""
    whole = np.concatenate(tasks)
    keys = noise.children(whole, trees)
    # the initial latent has a stream of its own: child 0 of the tree's key is the first branch's
    start = np.repeat(whole, trees) if shared_noise else keys
    row = torch.arange(len(tasks)).repeat_interleave(trees)
    return Roots(row, keys, noise.mix(start, 2**32))
