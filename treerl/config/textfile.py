"""Reads text files that somebody else wrote: UTF-8, or an error that says where it is not."""

import codecs
import stat
from pathlib import Path

from treerl.errors import InputError, shown

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16, whose mark it starts with
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read(path: Path, limit: int) -> str:
    """The text of a regular file of at most `limit` bytes, without a byte order mark."""
    return decode(read_bytes(path, limit), shown(path))


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes."""
    where = shown(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{where}: expected a file, got a folder")
        if not stat.S_ISREG(mode):  # a pipe could keep us waiting for ever
            raise InputError(f"{where}: expected a regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise InputError(f"{where}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{where}: cannot be read: {reason}") from error
    if len(data) > limit:
        raise InputError(f"{where}: expected at most {limit} bytes, got more")
    return data


def decode(data: bytes, where: str) -> str:
    """UTF-8 bytes as text, without a byte order mark; the error names the line and the byte."""
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise InputError(f"{where}:1: byte 0: expected UTF-8, got {name}")
    if len(data) >= 2 and (data[0] == 0) != (data[1] == 0):
        place = int(data[0] != 0)
        raise InputError(f"{where}:1: byte {place}: expected UTF-8, got UTF-16 without its mark")
    text = data.removeprefix(codecs.BOM_UTF8)
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        start = error.start + len(data) - len(text)
        line = data.count(b"\n", 0, start) + 1
        raise InputError(
            f"{where}:{line}: byte {start}: expected UTF-8, got 0x{data[start]:02x}"
        ) from None
