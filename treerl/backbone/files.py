"""Model files of strangers: whatever goes wrong while one is read becomes one line, exit code 2."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging as transformers_logging

from treerl.errors import InputError, StorageError, TreerlError, first_line, printable

_POINTER = b"version https://git-lfs"
_ADAPTER = "adapter_config.json"
_JSON_BYTES = 10_000_000  # of one JSON file of a model folder
_SHOWN = 3  # names in a message
Shapes = Mapping[str, tuple[int, ...]]  # of tensors by name


@contextmanager
def boundary(what: str) -> Iterator[None]:
    """Turns whatever diffusers, transformers and peft raise into an `InputError` that says `what`.

    Their own messages stay silent meanwhile, for they carry names from the files as they are.
    """
    loud = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    diffusers_logging.set_verbosity(diffusers_logging.CRITICAL)
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        yield
    except TreerlError:
        raise
    except Exception as error:
        reason = first_line(error)
        if isinstance(error, RecursionError):
            reason = "something in it is nested too deep"
        elif not isinstance(error, OSError | ValueError | RuntimeError):
            reason = f"{type(error).__name__}: {reason}"
        raise InputError(f"{what}: {reason}") from error
    finally:
        diffusers_logging.set_verbosity(loud[0])
        transformers_logging.set_verbosity(loud[1])


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a JSON file."""
    refuse_no_file(path, what)
    name = printable(path.name)
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise InputError(f"{what}: {name} has more than {_JSON_BYTES:,} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise InputError(f"{what}: {name} is nested too deep") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: {name} cannot be read: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{what}: {name} is not a mapping")
    return value


def read_tensors(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by name, and its metadata."""
    refuse_no_file(path, what)
    try:
        # whatever device networks are being made on, a file's numbers are read to be looked at
        with torch.device("cpu"), safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return tensors, dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{what}: {printable(path.name)}: {first_line(error)}") from error


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """A safetensors file; `StorageError` when the disk is full or the folder refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), path, {"format": "pt", **(metadata or {})})
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{printable(path)}: {first_line(error)}") from error


def refuse_no_file(path: Path, what: str) -> None:
    """`InputError` for what is no plain file, or what Git LFS left where a file belongs."""
    name = printable(path.name)
    if path.exists() and not path.is_file():  # a pipe would keep whoever reads it waiting for ever
        raise InputError(f"{what}: {name}: expected a plain file")
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError as error:
        raise InputError(f"{what}: {name}: {first_line(error)}") from error
    if start == _POINTER:
        raise InputError(f"{what}: {name} is a Git LFS pointer, not the file; run `git lfs pull`")


def refuse_other_model(folder: Path, what: str) -> None:
    """`InputError` for a network that transformers would take from wherever its adapter says."""
    if os.path.lexists(folder / _ADAPTER):
        raise InputError(f"{what}: it has an {_ADAPTER}, which leads to another model")


def refuse_other_tensors(what: str, wanted: Shapes, present: Shapes, missing: list[str]) -> None:
    """`InputError` with the names of tensors that are missing, foreign, or of another shape."""
    foreign = [name for name in present if name not in wanted]
    shapes = []
    for name, shape in present.items():
        if name in wanted and shape != wanted[name]:
            shapes.append(f"{name} {list(shape)} for {list(wanted[name])}")
    refuse_tensors(what, missing, foreign, shapes)


def refuse_tensors(what: str, missing: list[str], foreign: list[str], shapes: list[str]) -> None:
    """`InputError` with the first names of each kind, when there are any."""
    parts = [("it lacks", missing), ("it has foreign", foreign), ("other shapes:", shapes)]
    text = "; ".join(f"{kind} {listed(names)}" for kind, names in parts if names)
    if text:
        raise InputError(f"{what}: {text}")


def refuse_no_floats(what: str, others: Mapping[str, str]) -> None:
    """`InputError` with the names of tensors whose type, by name, is none of real numbers."""
    if others:
        kinds = " and ".join(sorted(set(others.values())))
        names = listed(sorted(others))
        raise InputError(f"{what}: expected floating-point numbers, got {kinds}: {names}")


def listed(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    shown = ", ".join(printable(name, 80) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
