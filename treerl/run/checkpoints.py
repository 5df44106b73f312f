"""Checkpoints: folders that appear whole, tell themselves whether they still are, and go in turn.

checkpoints/iteration-000020/
    manifest.json               the size and sha256 of every other file
    training/state.json         where the run stood
    training/tensors.safetensors    weights, moments, memories, the evaluation before training
    training/part-0000R-of-0000N.safetensors    of a model in parts: the moments of each process
    ...                         what the backbone saves, which `treerl export` reads
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from treerl.errors import InputError, StorageError, TreerlError, printable
from treerl.run import durable, stored
from treerl.run.files import File, Number, Numbers, Text, checked

_PREFIX = "iteration-"
_MANIFEST = "manifest.json"
_STATE = "training/state.json"
_TRAINING = "training"
_BLOCK = 1 << 20
_MARGIN = 1.1  # of the tensors' bytes: headers, and what others write meanwhile
_BESIDE = 1 << 14  # bytes of the files without tensors, and of blocks that are filled in part
_LARGEST = 1 << 26  # bytes of a manifest or a state

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Sum(File):
    """What a file must be."""

    bytes: int = Field(ge=0)
    sha256: Sha256


class Contents(File):
    """manifest.json of a checkpoint."""

    format: Literal[1] = 1
    files: dict[str, Sum]


class RunState(File):
    """Where a run stands beside its tensors."""

    run: Text  # the number of the run that it belongs to
    iteration: int = Field(ge=0)
    treerl: Text
    tasks: Sha256  # of the tasks that are trained on and held out
    heldout: Number = None  # the held-out reward at this iteration, where it was measured
    spent: Numbers
    seconds: Numbers
    quality: Numbers  # of the evaluation before training
    alarms: list[Text]
    rollbacks: int = Field(default=0, ge=0)


Write = Callable[[Path, Mapping[str, Tensor]], None]  # files of the model into a folder
Bring = Callable[[Path], None]  # what all processes have of what lies in parts into a folder


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, verified."""

    path: Path
    state: RunState
    tensors: Mapping[str, Tensor]  # read one by one


def save(
    folder: Path,
    state: RunState,
    tensors: dict[str, Tensor],
    write: Write | None,
    bring: Bring | None = None,
    beside: int = 0,
) -> Path:
    """Publish `folder/iteration-NNNNNN`, verified; what `write` makes of the tensors lies in it.

    `bring` adds what lies in parts, of `beside` bytes.
    """
    target = path_of(folder, state.iteration)
    durable.require_space(folder, _needed(tensors, write is not None) + beside)

    def fill(draft: Path) -> None:
        if bring is not None:
            (draft / _TRAINING).mkdir()
            bring(draft / _TRAINING)
        if write is not None:
            write(draft, tensors)
        stored.write_whole(draft / _TRAINING, tensors)
        (draft / _STATE).write_text(_canonical(state), encoding="utf-8")
        files = {name: _sum(draft / name) for name in _names(draft)}
        (draft / _MANIFEST).write_text(_canonical(Contents(files=files)), encoding="utf-8")

    durable.publish_folder(target, fill)
    verify(target)
    return target


def rotate(folder: Path, keep: Iterable[int]) -> None:
    """Remove the checkpoints of all iterations but these."""
    kept = set(keep)
    for path in everyone(folder):
        if number(path) not in kept:
            durable.discard(path)


def everyone(folder: Path) -> list[Path]:
    """The checkpoints of a run's `checkpoints` folder by iteration, whole or not."""
    folders = [path for path in folder.glob(f"{_PREFIX}*") if path.is_dir() and number(path) >= 0]
    return sorted(folders, key=number)


def path_of(folder: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return folder / f"{_PREFIX}{iteration:06d}"


def number(path: Path) -> int:
    """The iteration that a folder's name tells; -1 for another folder."""
    digits = path.name.removeprefix(_PREFIX)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else -1


def newest(folder: Path) -> Path:
    """The last checkpoint, whole or not."""
    folders = everyone(folder)
    if not folders:
        raise InputError(printable(f"{folder}: expected a checkpoint in it, and there is none"))
    return folders[-1]


def is_one(path: Path) -> bool:
    """Whether a folder is more than what `Session.save` writes, which has no sums to be held to."""
    return (path / _MANIFEST).exists() or (path / _STATE).parent.exists()


def newest_whole(folder: Path) -> tuple[Path, list[str]]:
    """The last checkpoint that is whole, and what is wrong with those after it."""
    wrong = []
    for path in reversed(everyone(folder)):
        try:
            verify(path)
        except TreerlError as error:
            wrong.append(str(error))
            continue
        return path, wrong
    raise StorageError("\n".join(wrong) or printable(f"{folder}: there is no checkpoint in it"))


def load(path: Path, run: str) -> Checkpoint:
    """A checkpoint of this run; `StorageError` when it is damaged or another run's."""
    verify(path)
    state = read_state(path)
    if state.run != run:
        raise StorageError(printable(f"{path}: of run {state.run}, expected one of {run}"))
    if state.iteration != number(path):
        raise StorageError(printable(f"{path}: its state is of iteration {state.iteration}"))
    return Checkpoint(path, state, stored.Stored(path / _TRAINING))


def read_state(path: Path) -> RunState:
    """Where the run stood."""
    return checked(RunState, _read(path / _STATE), str(path / _STATE))


def verify(path: Path) -> None:
    """`StorageError` when a file of the checkpoint is missing, foreign or not as it was written."""
    where = path / _MANIFEST
    text = _read(where)
    contents = checked(Contents, text, str(where))
    if _canonical(contents).encode() != text:  # also says no to a flipped blank
        raise StorageError(printable(f"{where}: not as it was written"))
    names = set(_names(path)) - {_MANIFEST}
    for name in sorted(names ^ set(contents.files)):
        problem = "is foreign" if name in names else "is missing"
        raise StorageError(printable(f"{path}: {name} {problem}"))
    for name, expected in contents.files.items():
        if _sum(path / name) != expected:
            raise StorageError(printable(f"{path / name}: not as it was written"))


def _names(folder: Path) -> list[str]:
    """Every file below, but those of the system that begin with a dot."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        plain = path.is_dir() and not path.is_symlink()
        if not plain and not name.name.startswith("."):
            names.append(str(PurePosixPath(name)))
    return names


def _sum(path: Path) -> Sum:
    with durable.storing(path):
        if not path.is_file() or path.is_symlink():
            raise StorageError(printable(f"{path}: expected a plain file"))
        digest = hashlib.sha256()
        count = 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                count += len(block)
    return Sum(bytes=count, sha256=digest.hexdigest())


def _canonical(model: File) -> str:
    return json.dumps(model.model_dump(), indent=1, sort_keys=True, allow_nan=False) + "\n"


def _read(path: Path) -> bytes:
    with durable.storing(path):
        if not path.is_file() or path.stat().st_size > _LARGEST:
            raise StorageError(printable(f"{path}: expected a file of at most {_LARGEST:,} bytes"))
        return path.read_bytes()


def _needed(tensors: dict[str, Tensor], portable: bool) -> int:
    """The bytes that a checkpoint takes: the weights twice where the backbone saves them, too."""
    total = 0
    for name, tensor in tensors.items():
        twice = portable and name.startswith("weights/")
        total += tensor.numel() * tensor.element_size() * (2 if twice else 1)
    return int(_MARGIN * total) + _BESIDE
