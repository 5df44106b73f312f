"""Counter-based noise: a draw is a function of (seed, stream, iteration, prompt, node path) alone.

A key is a 64-bit hash of that path; a child's key is its parent's key mixed with the child's
number. So a tree is the same at any batch size, row count or order of the prompts, on any device
up to the rounding of a logarithm, and nothing has to be saved to resume.
"""

import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treerl.engine import philox

Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIFORM = 2**33  # a child number that no node has: uniform and normal draws of a key never meet


class Stream(IntEnum):
    """What random numbers are for: different streams never meet."""

    ROLLOUT = 1
    EVALUATION = 2
    SHAPE = 3
    PROMPTS = 4
    SHUFFLE = 5
    LEAVES = 7
    REPLAY = 8


def mix(keys: Keys, number: Keys | int) -> Keys:
    """The key of child `number` of each key.

    The finaliser of splitmix64 over key + (number + 1) · golden ratio.
    """
    with np.errstate(over="ignore"):
        z = keys + (np.asarray(number, dtype=np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Keys = z ^ (z >> np.uint64(31))
    return mixed


def key(*path: int) -> Keys:
    """The key `[1]` of a path of non-negative integers: `key(seed, Stream.SHAPE, iteration)`."""
    keys = np.zeros(1, dtype=np.uint64)
    for number in path:
        keys = mix(keys, number)
    return keys


def children(keys: Keys, count: int | NDArray[np.int64]) -> Keys:
    """The keys of the children of `[M]` keys, siblings adjacent; `count` each, or `[M]` counts.

    Counts (2, 1) give the children numbers 0, 1 of the first key and 0 of the second.
    """
    counts = np.broadcast_to(np.asarray(count, dtype=np.int64), keys.shape)
    return mix(np.repeat(keys, counts), numbers(counts).astype(np.uint64))


def numbers(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... within each of `[M]` counts: (2, 1) gives 0, 1, 0."""
    first = np.cumsum(counts) - counts
    return np.arange(counts.sum()) - np.repeat(first, counts)


def generator(*path: int) -> np.random.Generator:
    """A numpy generator for a path, for permutations and single draws."""
    return np.random.Generator(np.random.Philox(key=int(key(*path)[0])))


def normal(
    keys: Keys, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal draws `[M, *shape]`, row m a function of `keys[m]`; float32 at first."""
    draws = philox.normal(_on(device, keys), math.prod(shape))
    return draws.reshape(len(keys), *shape).to(dtype)


def uniform(
    keys: Keys, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Draws uniform in [0, 1) `[M, *shape]`, row m a function of `keys[m]`; likewise."""
    draws = philox.uniform(_on(device, mix(keys, _UNIFORM)), math.prod(shape))
    return draws.reshape(len(keys), *shape).to(dtype)


def _on(device: torch.device | str, keys: Keys) -> Tensor:
    """The bits of keys `[M]` as torch's integers."""
    return torch.from_numpy(keys.view(np.int64)).to(device, non_blocking=True)
