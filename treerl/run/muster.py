"""Finds the processes that were started together, where a store still has the keys of others."""

import hashlib
import json
import secrets
import time

from torch.distributed.distributed_c10d import Store

from treerl.errors import PeerError

_PAUSE = 0.02  # seconds between two looks
_NAMED = 8  # of those who did not come
_LIST = "muster/list"  # keys of the store
_GO = "muster/go"


def muster(store: Store, rank: int, size: int, timeout: float) -> str:
    """A name for these `size` processes, the same in each; `PeerError` after `timeout` seconds.

    A launcher that starts processes again may keep its store, and with it what those before wrote:
    an address read too early is that of a dead process. So each process brings a number of its own.
    Rank 0 writes down whose numbers it sees, and everybody who is on that list as it is now answers
    it; once all have, the list is that of the living, and its hash their name.
    """
    mine = secrets.token_hex(16)
    store.set(_number(rank), mine)
    limit = time.monotonic() + timeout
    while time.monotonic() < limit:
        if rank == 0:
            _write_down(store, size)
        name = _answered(store, rank, mine)
        if name is not None and _read(store, _GO) == name:
            return name
        time.sleep(_PAUSE)
    name = _hash(_read(store, _LIST))
    others = [other for other in range(size) if other != rank]
    missing = [str(other) for other in others if _read(store, _answer(other)) != name]
    named = ", ".join(missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    raise PeerError(f"rank {rank} of {size} could not join: no answer of rank {named}{more}")


def _write_down(store: Store, size: int) -> None:
    """The numbers that are there; when all of them have answered, that is said."""
    numbers = [_read(store, _number(rank)) for rank in range(size)]
    if "" in numbers:
        return
    text = json.dumps(numbers)
    if _read(store, _LIST) != text:
        store.set(_LIST, text)
    name = _hash(text)
    if all(_read(store, _answer(rank)) == name for rank in range(size)):
        store.set(_GO, name)


def _answered(store: Store, rank: int, mine: str) -> str | None:
    """The name of the list, which this process has answered; None while it is not on it."""
    text = _read(store, _LIST)
    if not text or json.loads(text)[rank : rank + 1] != [mine]:
        return None
    name = _hash(text)
    if _read(store, _answer(rank)) != name:
        store.set(_answer(rank), name)
    return name


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read(store: Store, key: str) -> str:
    """What stands there; empty where nothing does."""
    return store.get(key).decode() if store.check([key]) else ""


def _number(rank: int) -> str:
    return f"muster/number/{rank}"


def _answer(rank: int) -> str:
    return f"muster/answer/{rank}"
