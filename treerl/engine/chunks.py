"""Every forward has one row count: chunks of indices, the last filled up with repeats."""

from collections.abc import Iterator

import torch
from torch import Tensor


def chunks(count: int, rows: int) -> Iterator[tuple[Tensor, int]]:
    """Indices `[rows]` that cover 0 ... count - 1, and how many of each are real.

    The last is padded with repeats: one row count for every forward means one graph, no
    recompilation, and the same arithmetic on replay. Of 5 in rows of 3: (0 1 2, 3), (3 4 4, 2).
    """
    for low in range(0, count, rows):
        index = torch.arange(low, low + rows)
        yield index.clamp(max=count - 1), min(rows, count - low)
