"""The folder of a comparison: a line for each cell that ended, written before anything goes on."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from treerl.bench.cell import Cell
from treerl.bench.files import Declaration, Row
from treerl.config.resolve import dump
from treerl.errors import InputError, NumericsError, shown
from treerl.run import durable
from treerl.run.claim import locked
from treerl.run.durable import storing
from treerl.run.files import checked

_BYTES = 1 << 28  # of a file; a larger one is not ours
_LOCK = ".lock"
_FINAL = NumericsError.code  # a failure that the same seed would meet again


@dataclass(frozen=True)
class BenchFolder:
    """bench.json, cells.jsonl, cells.csv, report.html, and a run file for each cell."""

    path: Path

    @property
    def declaration_file(self) -> Path:
        """What was compared."""
        return self.path / "bench.json"

    @property
    def cells_file(self) -> Path:
        """The rows."""
        return self.path / "cells.jsonl"

    def declare(self, declaration: Declaration) -> Declaration:
        """Write what is compared; the time of a first start is kept."""
        before = self._read(self.declaration_file)
        if before:
            old = checked(Declaration, before, str(self.declaration_file))
            declaration.started = old.started
        text = json.dumps(declaration.model_dump(), indent=1, allow_nan=False) + "\n"
        durable.publish_file(self.declaration_file, text)
        return declaration

    def write_config(self, cell: Cell) -> Path:
        """The cell's run file, by which `treerl run --config` trains the same."""
        path = self.path / "configs" / cell.file
        with storing(path):
            path.parent.mkdir(exist_ok=True)
        durable.publish_file(path, dump(cell.config))
        return path

    def append(self, row: Row) -> None:
        """Add a row; it is on the disk when this returns."""
        line = json.dumps(row.model_dump(), allow_nan=False) + "\n"
        with storing(self.cells_file), self.cells_file.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> dict[str, Row]:
        """The rows by the key of their cell, the last one of each; what a kill tore is cut off."""
        content = self._read(self.cells_file)
        *lines, torn = content.split(b"\n")
        if torn:
            whole = content[: len(content) - len(torn)].decode("utf-8", "replace")
            durable.publish_file(self.cells_file, whole)
        rows: dict[str, Row] = {}
        for number, line in enumerate(lines, 1):
            row = checked(Row, line, f"{self.cells_file}:{number}")
            rows[row.key] = row
        return rows

    def publish(self, name: str, text: str) -> Path:
        """Write a file as a whole."""
        path = self.path / name
        durable.publish_file(path, text)
        return path

    def _read(self, path: Path) -> bytes:
        with storing(path):
            if not path.exists():
                return b""
            if not path.is_file() or path.stat().st_size > _BYTES:
                raise InputError(f"{shown(path)}: expected a file of at most {_BYTES:,} bytes")
            return path.read_bytes()


def is_final(row: Row) -> bool:
    """Whether a cell need not be trained again: it is done, or would fail again."""
    return row.status == "done" or row.code == _FINAL


@contextmanager
def opened(output: Path | None) -> Iterator[BenchFolder]:
    """The folder of a comparison, new or to go on with; no other process works there meanwhile."""
    path = _next() if output is None else output
    with storing(path):
        if path.exists() and not path.is_dir():
            raise InputError(f"--output: {shown(path)}: expected a folder, got a file")
        path.mkdir(parents=True, exist_ok=True)
        inside = {entry.name for entry in path.iterdir() if not durable.is_draft(entry)}
    if inside - {_LOCK} and "bench.json" not in inside:
        raise InputError(
            f"--output: {shown(path)}: expected a new folder, or one of treerl bench, got other "
            "files in it"
        )
    with locked(path):
        durable.sweep(path)
        yield BenchFolder(path)


def _next() -> Path:
    """Make the next free runs/bench-NNNN."""
    runs = Path("runs")
    with storing(runs):
        runs.mkdir(exist_ok=True)
        names = [path.name.removeprefix("bench-") for path in runs.glob("bench-*")]
        number = max((int(name) for name in names if name.isdecimal()), default=0) + 1
        while True:
            path = runs / f"bench-{number:04d}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return path


def table(rows: Iterable[Row]) -> str:
    """CSV: a line for each cell and mark; a cell that failed at once has a line without figures."""
    lines = [line for row in rows for line in _lines(row)]
    names = dict.fromkeys(name for line in lines for name in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _lines(row: Row) -> Iterator[Mapping[str, object]]:
    start = {
        "phase": row.phase,
        "recipe": row.recipe,
        "settings": " ".join([*row.settings, *row.tried]),
        "seed": row.seed,
        "status": row.status,
    }
    for point in row.points:
        yield {
            **start,
            "mark": point.mark,
            "iteration": point.iteration,
            **point.spent,
            "seconds": point.seconds,
            "samples": point.heldout.samples,
            **point.figures(),
        }
    if not row.points:
        yield start
