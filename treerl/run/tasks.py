"""Prompts from a file or from the package, and the part of them that is held out."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from treerl.config import textfile
from treerl.config.schema import Config
from treerl.config.setting import is_control, shorten
from treerl.errors import InputError

_BYTES = 2**28
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)

Rows = Iterator[tuple[int, str]]  # line number and prompt


def read(path: Path, max_length: int, field: str = "prompt") -> list[str]:
    """The prompts of a .txt, .jsonl or .csv file in their order; blank ones are skipped, repeated ones kept.

    `field` is the key, or the column, that holds them.
    """
    reader = _READERS.get(path.suffix.lower())
    where = textfile.shown(path)
    if reader is None:
        raise InputError(
            f"{where}: expected a file named {', '.join(f'*{suffix}' for suffix in _READERS)}"
        )
    return _checked(reader(textfile.read(path, _BYTES), where, field), where, max_length)


def split(prompts: Sequence[str], seed: int, share: float = 0.1) -> tuple[list[str], list[str]]:
    """Training and held-out prompts; a text is on one side only, whatever the order and the repetitions of the file.

    A single text is both.
    """
    texts = sorted(
        set(prompts), key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest()
    )
    if len(texts) < 2:
        return list(prompts), list(prompts)
    count = min(max(1, round(share * len(texts))), len(texts) - 1)
    held = set(texts[:count])
    return [text for text in prompts if text not in held], [
        text for text in prompts if text in held
    ]


def builtin(name: str) -> tuple[list[str], list[str]]:
    """The training and the held-out prompts of a set that comes with the package."""
    folder = resources.files("treerl").joinpath("prompts")
    if not _NAME.fullmatch(name) or not folder.joinpath(f"{name}-train.txt").is_file():
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        known = sorted(
            file.removesuffix("-train.txt") for file in names if file.endswith("-train.txt")
        )
        raise InputError(
            f"unknown built-in prompts {shorten(name)}; known: {', '.join(known) or 'none'}"
        )
    parts = []
    for part in ("train", "heldout"):
        file = folder.joinpath(f"{name}-{part}.txt")
        if not file.is_file():
            raise InputError(f"built-in prompts {name}: {file.name} is missing")
        parts.append(
            _checked(_lines(textfile.decode(file.read_bytes(), file.name)), file.name, 10_000)
        )
    return parts[0], parts[1]


def chosen(config: Config) -> tuple[list[str], list[str]]:
    """The training and the held-out prompts of the configuration."""
    own, most = config.prompts, config.prompts.max_length
    train, heldout = builtin(own.builtin)
    if own.train is not None:
        train = read(Path(own.train), most, own.field)
        if own.heldout is None:
            train, heldout = split(train, config.seed)
    if own.heldout is not None:
        heldout = read(Path(own.heldout), most, own.field)
    return train, heldout[: config.evaluate.prompts]


def _checked(rows: Rows, where: str, max_length: int) -> list[str]:
    found = []
    for line, raw in rows:
        text = raw.strip(" \t")
        bad = next((letter for letter in text if is_control(letter)), None)
        if bad is not None:
            raise InputError(
                f"{where}:{line}: expected no control characters, got U+{ord(bad):04X}"
            )
        if len(text) > max_length:
            raise InputError(
                f"{where}:{line}: expected at most {max_length} characters, got {len(text)}"
            )
        if text:
            found.append(text)
    if not found:
        raise InputError(f"{where}: expected at least one prompt, got none")
    return found


def _lines(text: str, where: str = "", field: str = "") -> Rows:
    # not splitlines: it also breaks at separators that may stand inside a prompt
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, line.removesuffix("\r")


def _objects(text: str, where: str, field: str) -> Rows:
    for number, line in _lines(text):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = (
                error.msg
                if isinstance(error, json.JSONDecodeError)
                else "too deep or too long a number"
            )
            raise InputError(
                f"{where}:{number}: expected a JSON object, got a line that is not JSON: {problem}"
            ) from None
        if not isinstance(row, dict):
            raise InputError(f"{where}:{number}: expected a JSON object, got {shorten(row)}")
        if field not in row:
            keys = textfile.shown(", ".join(row) or "none")
            raise InputError(
                f'{where}:{number}: missing key "{field}" (prompts.field); it has {keys}'
            )
        if not isinstance(row[field], str):
            raise InputError(
                f'{where}:{number}: "{field}": expected a text, got {shorten(row[field])}'
            )
        yield number, row[field]


def _table(text: str, where: str, field: str) -> Rows:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            if header is None:
                header = _header(row, where, field)
            elif row and len(row) != len(header):
                why = "a comma inside a prompt needs quotes"
                got = f"expected {len(header)} fields, got {len(row)} ({why})"
                raise InputError(f"{where}:{reader.line_num}: {got}")
            elif row:
                yield reader.line_num, row[header.index(field)]
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}: not CSV: {error}") from None


def _header(row: list[str], where: str, field: str) -> list[str]:
    header = [name.strip() for name in row]
    if header.count(field) != 1:
        found = textfile.shown(", ".join(header) or "none")
        what = "expected one column of that name (prompts.field), got the columns"
        raise InputError(f'{where}:1: missing key "{field}": {what} {found}')
    return header


_READERS: dict[str, Callable[[str, str, str], Rows]] = {
    ".txt": _lines,
    ".jsonl": _objects,
    ".csv": _table,
}
