"""The processes that grow one forest together; the engine knows them by this contract alone."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor


class Peers(Protocol):
    """What the engine asks of the processes beside it; all of them call in the same order."""

    @property
    def rank(self) -> int:
        """This process, 0 ... size - 1."""

    @property
    def size(self) -> int:
        """How many there are."""

    def share(self, count: int) -> range:
        """This process's part of `count` things: contiguous, in rank order, sizes differ by 1."""

    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """What every process brought, by rank, on the CPU."""

    def total(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place."""

    def agree(self, number: int) -> int:
        """The largest of the numbers that the processes brought."""

    def forwards(self, count: int) -> int:
        """How many forwards this process makes in place of `count`: where the model lies in parts
        on all processes, a forward needs all of them, and each makes the most that one needs."""

    def idle(self) -> AbstractContextManager[None]:
        """While inside, `forwards` counts none of this process's own: it only helps the others."""

    def phase(self, name: str) -> None:
        """Say what this process is doing now, a word: rollout, reward, update, ..."""


class Alone(Peers):
    """One process: everything is its own."""

    rank = 0
    size = 1

    def share(self, count: int) -> range:
        return range(count)

    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        return [dict(tensors)]

    def total(self, tensors: Sequence[Tensor]) -> None:
        return

    def agree(self, number: int) -> int:
        return number

    def forwards(self, count: int) -> int:
        return count

    def idle(self) -> AbstractContextManager[None]:
        return nullcontext()

    def phase(self, name: str) -> None:
        return
