"""Reads a run folder for people to look at: everything may be missing or torn, every file name is checked."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageSequence

from treerl.errors import StorageError
from treerl.report.markup import number

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI; `uri` is None when the file is missing or torn."""

    uri: str | None
    small: bool = False  # few pixels: enlarge them as squares


@dataclass(frozen=True)
class Sample:
    """A held-out caption, drawn from the same noise before and after training."""

    prompt: str
    before: Picture | None
    after: Picture | None
    before_score: float | None
    after_score: float | None
    before_right: float | None
    after_right: float | None


@dataclass(frozen=True)
class Node:
    """A node of a recorded tree; the edge is the one that leads to it."""

    id: int
    parent: int
    step: int
    stochastic: bool
    advantage: float | None
    value: float | None
    score: float | None
    weight: float | None
    picture: Picture | None


@dataclass(frozen=True)
class Forest:
    """The recorded trees of one prompt, parents before children."""

    iteration: int
    prompt: str
    steps: int
    window: tuple[int, ...]
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    name: str
    config_text: str
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]  # one row an iteration, in order
    torn: int  # lines of metrics.jsonl that could not be read
    samples: tuple[Sample, ...]
    forest: Forest | None


def read(run: Path) -> Run:
    """The run in the folder `run`; `StorageError` when it is no run folder or names a file outside itself."""
    manifest = _json(run, "manifest.json")
    if manifest is None:
        raise StorageError(f"{run}: no manifest.json, so this is not a run folder")
    config_text = (_bytes(run, "config.yaml") or b"").decode("utf-8", "replace")
    metrics, torn = _metrics((_bytes(run, "metrics.jsonl") or b"").decode("utf-8", "replace"))
    samples = (_json(run, "samples/samples.json") or {}).get("samples")
    tree = _json(run, "trees/tree.json")
    return Run(
        name=run.resolve().name,
        config_text=config_text,
        config=_yaml(run, config_text),
        manifest=manifest,
        metrics=metrics,
        torn=torn,
        samples=tuple(_sample(run, row) for row in _rows(samples)),
        forest=None if tree is None else _forest(run, tree),
    )


def part(mapping: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The object at `path`, empty when there is none."""
    for key in path:
        value = mapping.get(key)
        mapping = value if isinstance(value, dict) else {}
    return mapping


def _bytes(run: Path, name: str) -> bytes | None:
    path = run / name
    try:
        if not path.is_file():
            return None
        if not path.resolve().is_relative_to(run.resolve()):
            raise StorageError(f"{path}: leads out of the run folder")
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def _json(run: Path, name: str) -> dict[str, Any] | None:
    raw = _bytes(run, name)
    if raw is None:
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{run / name}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise StorageError(f"{run / name}: expected an object, got {type(value).__name__}")
    return value


def _yaml(run: Path, config: str) -> Mapping[str, Any]:
    try:
        value = yaml.safe_load(config)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise StorageError(
            f"{run / 'config.yaml'}: not YAML: {' '.join(str(error).split())}"
        ) from error
    return value if isinstance(value, dict) else {}


def _metrics(lines: str) -> tuple[tuple[Mapping[str, Any], ...], int]:
    rows: dict[
        float, Mapping[str, Any]
    ] = {}  # a resumed run writes some iterations again: the later row counts
    torn = 0
    for line in filter(str.strip, lines.split("\n")):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        iteration = number(row.get("iteration", len(rows) + 1)) if isinstance(row, dict) else None
        if iteration is None:
            torn += 1
        else:
            rows[iteration] = {**row, "iteration": iteration}
    return tuple(rows[iteration] for iteration in sorted(rows)), torn


def _rows(value: object) -> Sequence[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _picture(run: Path, folder: str, name: object, limit: int) -> Picture | None:
    """The PNG `name` of `folder`, shrunk to `limit` pixels so that a page of large pictures stays a page."""
    if name is None:
        return None
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in (".", ".."):
        raise StorageError(f"{run / folder}: {str(name)[:120]!r} is no plain file name")
    raw = _bytes(run, f"{folder}/{name}")
    if raw is None:
        return Picture(None)
    try:
        with Image.open(io.BytesIO(raw), formats=["PNG"]) as image:
            image.load()
            size = max(image.size)
            if size > limit:
                raw = _shrunk(image, limit)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return Picture(None)
    return Picture(
        "data:image/png;base64," + base64.b64encode(raw).decode("ascii"), small=size < 128
    )


def _shrunk(image: Image.Image, limit: int) -> bytes:
    """The PNG of a picture, or of an animated one, at `limit` pixels."""
    first, *rest = [frame.copy() for frame in ImageSequence.Iterator(image)]
    for frame in (first, *rest):
        frame.thumbnail((limit, limit))
    animated = {
        "save_all": True,
        "append_images": rest,
        "duration": image.info.get("duration", 120),
        "loop": 0,
    }
    buffer = io.BytesIO()
    first.save(buffer, "PNG", **(animated if rest else {}))
    return buffer.getvalue()


def _sample(run: Path, row: Mapping[str, Any]) -> Sample:
    return Sample(
        prompt=str(row.get("prompt", "")),
        before=_picture(run, "samples", row.get("before"), 320),
        after=_picture(run, "samples", row.get("after"), 320),
        before_score=number(row.get("before_score")),
        after_score=number(row.get("after_score")),
        before_right=number(row.get("before_right")),
        after_right=number(row.get("after_right")),
    )


def _forest(run: Path, tree: Mapping[str, Any]) -> Forest:
    nodes = tuple(_node(run, row) for row in _rows(tree.get("nodes")))
    known = {-1}
    for node in nodes:
        if node.parent not in known or node.id in known:
            raise StorageError(
                f"{run / 'trees/tree.json'}: node {node.id} comes before its parent or twice"
            )
        known.add(node.id)
    window = tree.get("window")
    return Forest(
        iteration=_whole(tree.get("iteration")),
        prompt=str(tree.get("prompt", "")),
        steps=max([_whole(tree.get("steps")), *(node.step for node in nodes)]),
        window=tuple(_whole(step) for step in window) if isinstance(window, list) else (),
        nodes=nodes,
    )


def _node(run: Path, row: Mapping[str, Any]) -> Node:
    return Node(
        id=_whole(row.get("id")),
        parent=_whole(row.get("parent")),
        step=max(0, min(_whole(row.get("step")), 10_000)),
        stochastic=row.get("stochastic") is True,
        advantage=number(row.get("advantage")),
        value=number(row.get("value")),
        score=number(row.get("score")),
        weight=number(row.get("weight")),
        picture=_picture(run, "trees", row.get("picture"), 160),
    )


def _whole(value: object) -> int:
    found = number(value)
    return -1 if found is None else int(found)
