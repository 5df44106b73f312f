"""Every forward has one row count: chunks of indices, the last filled up with repeats."""

from collections.abc import Iterator

import torch
from torch import Tensor


def chunks(count: int, rows: int) -> Iterator[tuple[slice | Tensor, int]]:
    """Indices of `rows` rows each that cover 0 ... count - 1, and how many of each are real.

    The last is padded with repeats: one row count for every forward means one graph, no
    recompilation, and the same arithmetic on replay. Of 5 in rows of 3: (0:3, 3), (3 4 4, 2).
    """
    whole = count - count % rows
    for low in range(0, whole, rows):
        yield slice(low, low + rows), rows
    if whole < count:
        index = torch.arange(whole, whole + rows)
        yield index.clamp(max=count - 1), count - whole
