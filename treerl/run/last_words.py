"""An error as one process tells it to another: words and an exit code, nothing unpickled."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from torch.distributed.distributed_c10d import Store

from treerl.errors import (
    InputError,
    NumericsError,
    PeerError,
    RewardError,
    StorageError,
    TreerlError,
    reason,
)

_KEY = "failed"  # of the store: the first process that failed, and why


@dataclass(frozen=True)
class LastWords:
    """Why a process failed or ended."""

    rank: int
    code: int
    said: str
    known: bool  # an error of ours, which says all; else somebody else's

    @classmethod
    def of(cls, error: BaseException, rank: int) -> Self:
        known = isinstance(error, TreerlError)
        return cls(rank, getattr(error, "code", 1), str(error) if known else reason(error), known)

    @classmethod
    def load(cls, text: str) -> Self:
        return cls(**json.loads(text))

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @property
    def text(self) -> str:
        """For the others; a `PeerError` says itself whom it means."""
        return self.said if self.code == PeerError.code else f"rank {self.rank}: {self.said}"

    @property
    def stopped(self) -> bool:
        """Whether it ended by a signal that all of them obey."""
        return self.code > 128

    def error(self) -> TreerlError:
        """The same error for another process, with its exit code."""
        if not self.known:
            return PeerError(self.text)
        kinds = (InputError, NumericsError, StorageError, PeerError, RewardError)
        kind = next((kind for kind in kinds if kind.code == self.code), TreerlError)
        error = kind(self.said)
        error.code = self.code
        return error


def leave(store: Store, words: LastWords) -> None:
    """Leave them where the others find them; the first to do so is quoted."""
    store.compare_set(_KEY, "", words.dump())


def find(store: Store) -> LastWords | None:
    """Those of the first process that failed, if any did."""
    return LastWords.load(store.get(_KEY).decode()) if store.check([_KEY]) else None
