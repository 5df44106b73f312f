"""Processes that were started together find each other, whatever others left in the store."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store

from treerl.errors import PeerError
from treerl.run.muster import muster


def together(store: Store, late: Sequence[float], timeout: float = 20.0) -> list[str]:
    """The names that processes arrive at who come after so many seconds."""

    def come(rank: int) -> str:
        time.sleep(late[rank])
        return muster(store, rank, len(late), timeout)

    with ThreadPoolExecutor(len(late)) as pool:
        return list(pool.map(come, range(len(late))))


@pytest.mark.parametrize("late", [(0, 0), (0.2, 0), (0, 0.2), (0.1, 0.3, 0), (0,) * 8])
def test_all_arrive_at_one_name(late: tuple[float, ...]) -> None:
    names = together(HashStore(), late)
    assert len(set(names)) == 1 and names[0]


@pytest.mark.parametrize("late", [(0, 0.3), (0.3, 0), (0, 0.1, 0.3)])
def test_who_is_started_again_meets_the_others_of_now(late: tuple[float, ...]) -> None:
    store = HashStore()
    before = [together(store, (0,) * len(late))[0] for _ in range(2)]
    names = together(store, late)
    assert len(set(names)) == 1 and names[0] not in before


def test_who_came_and_died_is_not_waited_for() -> None:
    store = HashStore()
    for rank in (0, 1):  # each alone, before the other had come
        with pytest.raises(PeerError):
            muster(store, rank, 2, 0.1)
    assert len(set(together(store, (0, 0.2)))) == 1


def test_who_never_comes_is_named() -> None:
    with pytest.raises(PeerError, match=r"rank 0 of 3 could not join: no answer of rank 1, 2$"):
        muster(HashStore(), 0, 3, 0.2)


def test_of_many_who_never_come_a_few_are_named() -> None:
    with pytest.raises(PeerError, match=r"no answer of rank 1, 2, 3, 4, 5, 6, 7, 8 and 91 more$"):
        muster(HashStore(), 0, 100, 0.2)
