"""An error as one process tells it to another: words and an exit code, nothing unpickled."""

from collections.abc import Mapping

from treerl.errors import (
    InputError,
    NumericsError,
    PeerError,
    RewardError,
    StorageError,
    TreerlError,
    reason,
)


def told(error: BaseException | None, rank: int) -> dict[str, object] | None:
    """What other processes must know of an error, in what JSON has."""
    if error is None:
        return None
    known = isinstance(error, TreerlError)
    text = str(error) if known else reason(error)
    return {"rank": rank, "code": getattr(error, "code", 1), "text": text, "known": known}


def retold(said: Mapping[str, object]) -> TreerlError:
    """The error of another process, with its exit code."""
    text = str(said["text"])
    if not said["known"]:
        return PeerError(f"rank {said['rank']}: {text}")
    code = int(str(said["code"]))
    kinds = (InputError, NumericsError, StorageError, PeerError, RewardError)
    kind = next((kind for kind in kinds if kind.code == code), TreerlError)
    error = kind(text)
    error.code = code
    return error
