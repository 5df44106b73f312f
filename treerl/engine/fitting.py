"""Fewer rows a forward where memory is short, instead of an end."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from treerl.engine.peers import Peers
from treerl.errors import InputError

T = TypeVar("T")


class Sized(Protocol):
    """Something that makes forwards of so many rows, and may make smaller ones."""

    micro_batch_size: int
    peers: Peers


def fitting(sized: Sized, phase: str, call: Callable[[], T]) -> T:
    """What `call` gives; when memory is full, of a call with half of the rows.

    The rows stay halved. `InputError` where that cannot be done: one row is too much, or several
    processes go together, of which one alone cannot begin again.
    """
    while True:
        try:
            return call()
        except (RuntimeError, MemoryError) as error:
            if not _is_full(error):
                raise
            rows = sized.micro_batch_size
            if rows == 1 or sized.peers.size > 1:
                raise InputError(
                    f"train.micro_batch_size: expected a {phase} that fits in the memory of the "
                    f"device, got none with rows of {rows}; lower it, set "
                    "train.gradient_checkpointing=true, or see treerl plan --for"
                ) from error
        sized.micro_batch_size = -(-rows // 2)
        # outside the handler, as the error holds on to all that the call had made
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _is_full(error: BaseException) -> bool:
    """Whether memory was short; on a CPU torch says so by the words of its allocator alone."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "DefaultCPUAllocator" in str(error)
