"""The tensors of a checkpoint as files, read one by one: some lie in parts, a file a process."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from treerl.backbone.files import write_tensors
from treerl.errors import StorageError, first_line, printable
from treerl.run import durable

_WHOLE = "tensors.safetensors"
_PART = "part-{rank:05d}-of-{size:05d}.safetensors"
_PARTS = re.compile(r"part-([0-9]{5})-of-([0-9]{5})\.safetensors", re.ASCII)


def write_whole(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Those that one process has."""
    write_tensors(tensors, folder / _WHOLE)


def write_part(folder: Path, parts: Mapping[str, Tensor], rank: int, size: int) -> None:
    """What a process has of those that lie in parts, on the disk when this returns."""
    if not folder.is_dir():
        text = f"{folder}: expected the folder that rank 0 has made, which all processes must see"
        raise StorageError(printable(text))
    path = folder / _PART.format(rank=rank, size=size)
    contiguous = {name: part.contiguous() for name, part in parts.items()}
    write_tensors(contiguous, path)
    durable.force(path)


def refuse_missing(folder: Path, size: int) -> None:
    """`StorageError` unless every one of `size` processes has written its part."""
    if len(_parts(folder)) != size:
        raise StorageError(printable(f"{folder}: expected the parts of {size} processes"))


class Stored(Mapping[str, Tensor]):
    """The tensors in a folder, each read when it is asked for: a large model fits once, not often.

    Parts are put together along their first dimension, in the order of the processes.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, list[Path]] = {}
        for path in [folder / _WHOLE, *_parts(folder)]:
            with durable.storing(path):
                for name in _names(path):
                    self._files.setdefault(name, []).append(path)

    def __getitem__(self, name: str) -> Tensor:
        parts = [_read(path, name) for path in self._files[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _parts(folder: Path) -> list[Path]:
    """The files of all processes in their order; `StorageError` where one is missing."""
    numbered = {}
    sizes = set()
    for path in folder.iterdir():
        match = _PARTS.fullmatch(path.name)
        if match is not None:
            numbered[int(match[1])] = path
            sizes.add(int(match[2]))
    size = max(sizes, default=0)
    if len(sizes) > 1 or sorted(numbered) != list(range(size)):
        text = f"{folder}: expected the parts of {size} processes, got {sorted(numbered)}"
        raise StorageError(printable(text))
    return [numbered[rank] for rank in range(size)]


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except ValueError as error:
        raise StorageError(printable(f"{path}: {first_line(error)}")) from error


def _read(path: Path, name: str) -> Tensor:
    with durable.storing(path), safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor
