"""Who is taken for lost, and who is not: a process may take its time as long as it lives."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import begin, end
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException

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


_WORKS = (end_late, save_at_a_stop, save_at_an_error)


def _process(rank: int, folder: str, work: Callable[[World], None]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    store = FileStore(f"{folder}/store", 2)
    world = connect(store, rank, 2, timeout=60, patience=_PATIENCE)
    world.phase("update")  # gives a first sign
    work(world)
    Path(folder, f"lived.{rank}").touch()


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


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ProcessContext, Path]]:
    """All of them at once, as most of their time they wait."""
    begun = {}
    for work in _WORKS:
        folder = tmp_path_factory.mktemp(work.__name__)
        begun[work.__name__] = (begin(_process, (str(folder), work), 2), folder)
    folder = tmp_path_factory.mktemp("hang")
    begun["hang"] = (begin(_hang, (str(folder),), 2), folder)
    return begun


@pytest.mark.slow
@pytest.mark.parametrize("name", [work.__name__ for work in _WORKS])
def test_a_process_that_takes_its_time_is_left_alone(
    name: str, begun: dict[str, tuple[ProcessContext, Path]]
) -> None:
    context, folder = begun[name]
    end(context)
    assert {path.name for path in folder.glob("lived.*")} == {"lived.0", "lived.1"}


@pytest.mark.slow
def test_saving_has_until_the_timeout(
    begun: dict[str, tuple[ProcessContext, Path]],
) -> None:
    context, _ = begun["hang"]
    with pytest.raises(ProcessExitedException) as ended:
        end(context)
    assert (ended.value.error_index, ended.value.exit_code) == (1, PeerError.code)
