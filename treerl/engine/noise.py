"""Counter-based noise: every draw is a function of (seed, purpose, iteration, prompt, node path), and of nothing else.

A key is a 64-bit hash of that path; a child's key is its parent's key mixed with the child's number. So a tree is the
same at any batch size, row count, device or order of the prompts, and nothing has to be saved to resume.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Purpose(IntEnum):
    """What a stream of noise is for: streams of different purpose never meet."""

    ROLLOUT = 1
    EVALUATION = 2
    SHAPE = 3
    PROMPTS = 4
    SHUFFLE = 5
    FRACTION = 6


def mix(keys: Keys, number: Keys | int) -> Keys:
    """The key of child `number` of each key: the finaliser of splitmix64 over key + (number + 1) * golden ratio."""
    with np.errstate(over="ignore"):
        z = keys + (np.asarray(number, dtype=np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Keys = z ^ (z >> np.uint64(31))
    return mixed


def key(*path: int) -> Keys:
    """The key `[1]` of a path of non-negative integers, e.g. `key(seed, Purpose.SHAPE, iteration)`."""
    found = np.zeros(1, dtype=np.uint64)
    for number in path:
        found = mix(found, number)
    return found


def children(keys: Keys, count: int) -> Keys:
    """The keys `[M * count]` of `count` children of each of `[M]` keys, siblings adjacent."""
    numbers = np.tile(np.arange(count, dtype=np.uint64), len(keys))
    return mix(np.repeat(keys, count), numbers)


def generator(*path: int) -> np.random.Generator:
    """A numpy generator for a path, for permutations and single draws."""
    return _generator(int(key(*path)[0]))


def normal(
    keys: Keys, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal draws `[M, *shape]`, row m a function of `keys[m]` alone; drawn in float32 on the CPU."""
    out = np.empty((len(keys), *shape), dtype=np.float32)
    for row, one in enumerate(keys.tolist()):
        _generator(one).standard_normal(out=out[row], dtype=np.float32)
    return torch.from_numpy(out).to(device, dtype)


def _generator(one: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=one))
