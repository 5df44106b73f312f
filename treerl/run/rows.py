"""Reads the rows of a prompt file, .txt, .jsonl or .csv, each with the line that it stands on."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from treerl.config import textfile
from treerl.config.setting import shorten
from treerl.errors import InputError

_BYTES = 2**28

Row = Mapping[str, Any]  # the prompt under the field's name, and whatever else the row has
Rows = Iterator[tuple[int, Row]]  # line number and row


def read(path: Path, field: str) -> list[tuple[int, Row]]:
    """The rows of a file in their order; `InputError` names file and line."""
    where = textfile.shown(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        names = ", ".join(f"*{suffix}" for suffix in _READERS)
        raise InputError(f"{where}: expected a file named {names}")
    return list(reader(textfile.read(path, _BYTES), where, field))


def lines(text: str, where: str, field: str) -> Rows:
    """Each line is a prompt."""
    # not splitlines: it also breaks at separators that may stand inside a prompt
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, {field: line.removesuffix("\r")}


def _objects(text: str, where: str, field: str) -> Rows:
    for number, row in lines(text, where, field):
        line = row[field]
        if not line.strip():
            continue
        place = f"{where}:{number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            deep = "too deep or too long a number"
            problem = error.msg if isinstance(error, json.JSONDecodeError) else deep
            raise InputError(
                f"{place}: expected a JSON object, got a line that is not JSON: {problem}"
            ) from None
        if not isinstance(value, dict):
            raise InputError(f"{place}: expected a JSON object, got {shorten(value)}")
        if field not in value:
            keys = textfile.shown(", ".join(value) or "none")
            raise InputError(f'{place}: missing key "{field}" (data.prompt_field); it has {keys}')
        if not isinstance(value[field], str):
            raise InputError(f'{place}: "{field}": expected a text, got {shorten(value[field])}')
        yield number, value


def _table(text: str, where: str, field: str) -> Rows:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if header is None:
                header = _header(cells, where, field)
            elif cells and len(cells) != len(header):
                raise InputError(
                    f"{where}:{reader.line_num}: expected {len(header)} fields, got {len(cells)} "
                    "(a comma inside a prompt needs quotes)"
                )
            elif cells:
                row = dict(zip(header, cells, strict=True))
                # an empty cell says nothing, but a row without a prompt is a blank line
                yield (
                    reader.line_num,
                    {key: cell for key, cell in row.items() if cell or key == field},
                )
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}: not CSV: {error}") from None


def _header(cells: list[str], where: str, field: str) -> list[str]:
    header = [name.strip() for name in cells]
    for name in header:
        if header.count(name) > 1 and name != field:
            shown = textfile.shown(name)
            raise InputError(f"{where}:1: expected each column once, got {shown} twice")
    if header.count(field) != 1:
        names = textfile.shown(", ".join(header) or "none")
        raise InputError(
            f'{where}:1: missing key "{field}": expected one column of that name '
            f"(data.prompt_field), got the columns {names}"
        )
    return header


_READERS: dict[str, Callable[[str, str, str], Rows]] = {
    ".txt": lines,
    ".jsonl": _objects,
    ".csv": _table,
}
