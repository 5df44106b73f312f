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


def make_roots(
    tasks: Sequence[noise.Keys], trees: int | Sequence[int], shared_noise: bool = False
) -> Roots:
    """`trees` roots for each task's key `[1]`, or so many for each task in turn.

    `shared_noise` starts all of a task from one noise.
    """
    counts = np.full(len(tasks), trees) if isinstance(trees, int) else np.array(trees)
    whole = np.concatenate(tasks)
    keys = noise.children(whole, counts)
    # the initial latent has a stream of its own: child 0 of the tree's key is the first branch's
    start = np.repeat(whole, counts) if shared_noise else keys
    row = torch.arange(len(tasks)).repeat_interleave(torch.from_numpy(counts))
    return Roots(row, keys, noise.mix(start, 2**32))
