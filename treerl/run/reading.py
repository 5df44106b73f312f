"""Reads a run folder, whoever wrote it: nothing in it is trusted before it was checked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from treerl.errors import InputError, StorageError, printable
from treerl.run.durable import storing
from treerl.run.files import Manifest, MetricsRow, SampleRow, SamplesFile, TreeFile, checked

_BYTES = 1 << 28  # of a file; a larger one is no run's
SAMPLES = "samples/samples.json"
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds."""

    path: Path
    config_text: str
    config: Mapping[str, Any]
    manifest: Manifest
    rows: tuple[MetricsRow, ...]
    samples: tuple[SampleRow, ...]
    trees: Mapping[str, TreeFile]  # "first" and "last", as far as there are any


def read(path: Path) -> RunRecord:
    """What the folder holds; `StorageError` names the file, line and field at fault."""
    refuse_links(path)
    manifest = read_manifest(path)
    trees = {}
    for name in ("first", "last"):
        tree = _read_model(TreeFile, path / "trees" / f"{name}.json")
        if tree is not None:
            trees[name] = tree
    text = (_read_bytes(path / "config.yaml") or b"").decode("utf-8", "replace")
    return RunRecord(
        path=path,
        config_text=text,
        config=_read_yaml(path / "config.yaml", text),
        manifest=manifest,
        rows=tuple(read_metrics(path)),
        samples=tuple(read_samples(path)),
        trees=trees,
    )


def refuse_links(folder: Path) -> None:
    """`InputError` for a link out of the folder, or to nothing.

    Through it a run would write, or a page show, what is no part of the run.
    """
    with storing(folder):
        inside = os.path.realpath(folder)  # which, unlike Path.resolve, bears links in a circle
        for path in sorted(folder.rglob("*")):
            if not path.is_symlink():
                continue
            target = os.path.realpath(path)
            if not Path(target).is_relative_to(inside) or not os.path.exists(target):
                text = f"{path}: expected a part of the run, got a link to {target}"
                raise InputError(printable(text))


def read_manifest(folder: Path) -> Manifest:
    """Where the run comes from and how it stands."""
    manifest = _read_model(Manifest, folder / "manifest.json")
    if manifest is None:
        text = f"{folder}: expected a run folder, got no manifest.json in it"
        raise InputError(printable(text))
    return manifest


def read_samples(folder: Path) -> list[SampleRow]:
    """The held-out tasks that were drawn."""
    samples = _read_model(SamplesFile, folder / SAMPLES)
    return samples.samples if samples else []


def read_metrics(folder: Path) -> list[MetricsRow]:
    """The rows; a last line without an end is one that the run is still writing."""
    path = folder / "metrics.jsonl"
    *lines, _ = (_read_bytes(path) or b"").split(b"\n")
    rows: list[MetricsRow] = []
    for number, line in enumerate(lines, 1):
        row = checked(MetricsRow, line, f"{path}:{number}")
        if rows and row.iteration <= rows[-1].iteration:
            text = f"iteration {row.iteration} comes after {rows[-1].iteration}"
            raise StorageError(printable(f"{path}:{number}: {text}"))
        rows.append(row)
    return rows


def _read_yaml(path: Path, text: str) -> Mapping[str, Any]:
    try:
        value = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise StorageError(printable(f"{path}: not YAML: {problem}")) from error
    if not isinstance(value, dict):
        raise StorageError(printable(f"{path}: expected settings, got {type(value).__name__}"))
    return value


def _read_model(model: type[_Model], path: Path) -> _Model | None:
    content = _read_bytes(path)
    return None if content is None else checked(model, content, str(path))


def _read_bytes(path: Path) -> bytes | None:
    """The content of a plain file; None where there is nothing."""
    with storing(path):
        if not path.exists():
            return None
        if not path.is_file() or path.stat().st_size > _BYTES:
            raise StorageError(printable(f"{path}: expected a file of at most {_BYTES:,} bytes"))
        return path.read_bytes()
