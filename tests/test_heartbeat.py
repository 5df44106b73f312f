"""Who is taken for lost, and who is not: a process may take its time as long as it lives."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from treerl.errors import PeerError, RewardError, Stopped
from treerl.run.heartbeat import SAVING
from treerl.run.join import connect
from treerl.run.world import World

_PATIENCE = 1.5  # seconds
_LONG = 8.0  # more than patience and grace together


def end_late(world: World) -> None:
    """Rank 1 is done; rank 0 still writes."""
    if world.rank == 0:
        time.sleep(_LONG)
    world.close()


def save_at_a_stop(world: World) -> None:
    """Both were asked to stop; rank 0 saves before it says that it stops."""
    if world.rank == 0:
        time.sleep(_LONG)
    world.tell(Stopped(15))
    world.wait_for_rank_0()
    world.part()


def save_at_an_error(world: World) -> None:
    """Rank 1 fails; rank 0 keeps what was trained."""
    if world.rank == 1:
        world.tell(RewardError("reward near: it failed"))
        world.part()
    else:
        world.phase(SAVING)
        time.sleep(_LONG)
        world.part()


def _process(rank: int, folder: str, work: Callable[[World], None]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    store = FileStore(f"{folder}/store", 2)
    world = connect(store, rank, 2, timeout=60, patience=_PATIENCE)
    world.phase("update")  # gives a first sign
    work(world)
    Path(folder, f"lived.{rank}").touch()


@pytest.mark.parametrize("work", [end_late, save_at_a_stop, save_at_an_error])
def test_a_process_that_takes_its_time_is_left_alone(
    tmp_path: Path, work: Callable[[World], None]
) -> None:
    spawn(_process, (str(tmp_path), work), nprocs=2)  # type: ignore[no-untyped-call]
    assert {path.name for path in tmp_path.glob("lived.*")} == {"lived.0", "lived.1"}


def _hang(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    store = FileStore(f"{folder}/store", 2)
    world = connect(store, rank, 2, timeout=3, patience=_PATIENCE)
    if rank == 1:
        world.phase(SAVING)
        time.sleep(1000)
    world.tell(RewardError("reward near: it failed"))
    world.part()


def test_saving_has_until_the_timeout(tmp_path: Path) -> None:
    with pytest.raises(ProcessExitedException) as ended:
        spawn(_hang, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    assert (ended.value.error_index, ended.value.exit_code) == (1, PeerError.code)
