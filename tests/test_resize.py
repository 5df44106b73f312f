"""A run that two, one and two processes take up in turn ends as that of one process."""

import warnings
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from ended_runs import KINDS, prepare, run, stopping
from processes import together
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed import FileStore, destroy_process_group  # type: ignore[attr-defined]

import treerl
from treerl.errors import Stopped
from treerl.run import checkpoints, start as starting
from treerl.run.join import connect
from treerl.run.session import Session
from treerl.run.world import World

_KINDS = ("lora", "full", "two rewards", "reference")
_SETS = ("train.iterations=6", "train.prompts_per_iteration=3", "train.learning_rate=0.01")
_PROMPTS = 4  # so that iterations begin and end inside passes
_SIZES = (2, 1, 2)
_LAST = (2, 2, 2)  # iterations that each of them finishes


def phase(rank: int, folder: str, number: int) -> None:
    """Each kind of run by so many processes, until a signal comes to the last one."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    size = _SIZES[number]
    place = Path(folder)
    for kind in _KINDS:
        world = World()
        if size > 1:
            world = connect(FileStore(f"{folder}/{kind}.{number}", size), rank, size, timeout=100)
        stops = rank == size - 1 and number < len(_SIZES) - 1
        try:
            execute(place / kind, kind, f"{number}.{rank}", world, _LAST[number] if stops else 99)
        except Stopped:
            if size > 1:
                destroy_process_group()


def execute(folder: Path, kind: str, name: str, world: World, most: int) -> None:
    """Go on with the run; a signal comes when this process has finished `most` iterations."""

    def noted(session: Session) -> Iterator[treerl.Step]:
        for step in original(session):
            with Path(f"prompts.{name}").open("a") as file:
                file.write("".join(f"{task.prompt}\n" for task in step.tasks))
            yield step

    original = Session.train
    with (
        chdir(folder),
        patch.object(Session, "train", noted),
        stopping(most),
        patch.object(starting, "join", return_value=world),
    ):
        run(Path("run"), *KINDS[kind], *_SETS, resume="auto")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of each kind: `whole` of one process, and of two, one and two."""
    folder = tmp_path_factory.mktemp("resize")
    for kind in _KINDS:
        for place in (folder / kind, folder / "whole" / kind):
            place.mkdir(parents=True)
            prepare(place)
        execute(folder / "whole" / kind, kind, "all", World(), 99)
    for number, size in enumerate(_SIZES):
        together(phase, (str(folder), number), size)
    return folder


def prompts(folder: Path, *names: str) -> list[str]:
    return [
        prompt for name in names for prompt in (folder / f"prompts.{name}").read_text().splitlines()
    ]


def weights(folder: Path) -> dict[str, Tensor]:
    newest = checkpoints.newest(folder / "run" / "checkpoints")
    assert newest.name == "iteration-000006"
    tensors = load_file(newest / "training" / "tensors.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("weights/")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", _KINDS)
def test_no_prompt_is_skipped_or_doubled(kind: str, folder: Path) -> None:
    seen = prompts(folder / kind, "0.0", "1.0", "2.0")
    assert seen == prompts(folder / "whole" / kind, "all")
    assert seen == prompts(folder / kind, "0.1", "1.0", "2.1")  # two processes took part
    for start in range(0, len(seen) - _PROMPTS, _PROMPTS):
        assert len(set(seen[start : start + _PROMPTS])) == _PROMPTS
    assert len(seen) == 6 * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", _KINDS)
def test_the_weights_are_those_of_one_process(kind: str, folder: Path) -> None:
    one = weights(folder / "whole" / kind)
    several = weights(folder / kind)
    assert one.keys() == several.keys() and one
    for name, tensor in one.items():
        distance = (several[name] - tensor).norm() / tensor.norm()
        assert float(distance) <= 1e-6, name
