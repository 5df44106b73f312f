"""The rows of prompt files, .txt, .jsonl and .csv: as they are meant, or refused by line."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from treerl.config import textfile
from treerl.errors import InputError, shorten, shown

_BYTES = 2**28
_MOST = 1_000_000

Row = dict[str, Any]
Rows = Iterator[tuple[int, Row]]  # line number, and what it holds by key


def rows(path: Path, field: str) -> Rows:
    """The rows of a file in their order; each has the key `field`, which holds the prompt."""
    reader = _READERS.get(path.suffix.lower())
    where = shown(path)
    if reader is None:
        names = ", ".join(f"*{suffix}" for suffix in _READERS)
        raise InputError(f"{where}: expected a file named {names}")
    return counted(reader(textfile.read(path, _BYTES), where, field), where)


def counted(rows: Rows, where: str) -> Rows:
    """The rows, as long as they are not absurdly many."""
    for number, (line, row) in enumerate(rows, start=1):
        if number > _MOST:
            raise InputError(f"{where}:{line}: expected at most {_MOST} prompts, got more")
        yield line, row


def lines(text: str, where: str, field: str) -> Rows:
    """Each line is a prompt."""
    # not splitlines: it also breaks at separators that may stand inside a prompt
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, {field: line.removesuffix("\r")}


def _objects(text: str, where: str, field: str) -> Rows:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            problem = "too deep" if isinstance(error, RecursionError) else _json_problem(error)
            raise InputError(
                f"{where}:{number}: expected a JSON object, got a line that is not JSON: {problem}"
            ) from None
        if not isinstance(row, dict):
            raise InputError(f"{where}:{number}: expected a JSON object, got {shorten(row)}")
        if field not in row:
            keys = shown(", ".join(row) or "none")
            raise InputError(
                f'{where}:{number}: missing key "{field}" (data.prompt_field); it has {keys}'
            )
        yield number, row


def _object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return row


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _json_problem(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "too long a number" if "digits" in str(error) else str(error)


def _table(text: str, where: str, field: str) -> Rows:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if header is None:
                header = _header(cells, where, field)
            elif cells and len(cells) != len(header):
                why = "a comma inside a prompt needs quotes"
                got = f"expected {len(header)} fields, got {len(cells)} ({why})"
                raise InputError(f"{where}:{reader.line_num}: {got}")
            elif cells:
                # an empty cell says nothing, but for the prompt, which is then skipped as blank
                row = dict(zip(header, cells, strict=True))
                filled = {key: cell for key, cell in row.items() if cell or key == field}
                yield reader.line_num, filled
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}: not CSV: {error}") from None


def _header(cells: list[str], where: str, field: str) -> list[str]:
    header = [name.strip() for name in cells]
    columns = shown(", ".join(header) or "none")
    if header.count(field) != 1:
        what = "expected one column of that name (data.prompt_field), got the columns"
        raise InputError(f'{where}:1: missing key "{field}": {what} {columns}')
    if len(set(header)) < len(header):
        raise InputError(f"{where}:1: expected columns of different names, got {columns}")
    return header


_READERS: dict[str, Callable[[str, str, str], Rows]] = {
    ".txt": lines,
    ".jsonl": _objects,
    ".csv": _table,
}
