"""Errors a user can meet: one line each, with the exit code that scripts rely on."""

import sys
import traceback
from collections.abc import Mapping
from typing import Any

OWN_FILES = "treerl_plugin_"  # how the modules of users' own files are called, and a checksum
Problems = list[tuple[tuple[str, ...], str]]  # keys below a plug-in, and what is wrong there


class TreerlError(Exception):
    """An error that is reported as one line; `code` is the process's exit code."""

    code = 1
    said = False  # whether another process of the run prints it
    shared = False  # whether the processes of the run settled which of them prints it


class InputError(TreerlError):
    """The configuration, the command line, a prompt file or a model folder is wrong."""

    code = 2


class ParameterError(InputError):
    """Parameters that a plug-in does not take; one line each, at its dotted path."""

    def __init__(self, path: str, problems: Problems) -> None:
        lines = [f"{shown('.'.join((path, *keys)))}: {text}" for keys, text in problems]
        super().__init__("\n".join(lines))
        self.problems = problems


class NumericsError(TreerlError):
    """A number is not finite, or a density is refused."""

    code = 3


class StorageError(TreerlError):
    """A file could not be written or read back."""

    code = 4


class PeerError(TreerlError):
    """Another process of the run ended, failed or went another way."""

    code = 5


class RewardError(TreerlError):
    """A reward failed or broke its contract."""

    code = 6


class Stopped(TreerlError):
    """A signal asked the run to end; `code` is 128 + the signal's number."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.code = 128 + signal


def first_line(error: BaseException) -> str:
    """The first line of an error of somebody else's, to be quoted in one of ours."""
    lines = str(error).strip().splitlines()
    return printable(lines[0].rstrip(".")) if lines else type(error).__name__


def printable(text: object, limit: int = 300) -> str:
    """Somebody else's text on one line: at most `limit` characters, control characters escaped."""
    try:
        words = " ".join(str(text)[: 4 * limit].split())
    except Exception:  # an object whose own __str__ is broken
        words = f"(a {type(text).__name__} without a text)"
    letters = [
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in words
    ]
    line = "".join(letters)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def reason(error: BaseException) -> str:
    """What an error of somebody else's says, with its kind, on one printable line."""
    text = printable(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def fault(error: BaseException) -> TreerlError | None:
    """What ended a command, as one of our errors; None for its ordinary end and for our own faults.

    Out of a user's own file it is told with the line there. When such files are in use, one that
    returned something else than its contract says may have broken us: then where we stumbled.
    """
    if isinstance(error, TreerlError):
        return error
    ours = None
    in_file = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        place = f"{shown(frame.f_code.co_filename)}:{line}: {frame.f_code.co_qualname}"
        if module.startswith(OWN_FILES):
            in_file = place
        elif module.partition(".")[0] == "treerl":
            ours = place
    if in_file is not None:
        return TreerlError(f"{in_file} raised {reason(error)}")
    if isinstance(error, OSError):  # of a full stream, or of a file that nobody foresaw
        named = error.filename and error.strerror
        text = f"{shown(error.filename)}: {error.strerror}" if named else reason(error)
        return StorageError(text)
    in_use = any(name.startswith(OWN_FILES) for name in sys.modules)
    if isinstance(error, SystemExit) or not in_use:
        return None
    hint = "`treerl check` says whether a file of your own keeps its contract"
    return TreerlError(f"{ours} raised {reason(error)}; {hint}")


def is_control(letter: str) -> bool:
    """Control characters and halves of surrogate pairs: no part of a name, a path or a prompt."""
    code = ord(letter)
    return code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000


def shown(name: object, limit: int = 200) -> str:
    """A path or a key for an error line: as it is when printable, else escaped; never long."""
    text = str(name)
    if not text or not text.isprintable():
        text = ascii(text)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def shorten(value: object) -> str:
    """A value for the end of an error line: short, on one line, and printable everywhere."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**50:
        return "an integer of more than 50 digits"  # Python refuses to print some
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_KINDS = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "array": "a list",
    "null": "null",
}
_LIMITS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "multipleOf": "a multiple of",
}


def describe(schema: Mapping[str, Any]) -> str:
    """What a JSON schema accepts, in words: `an integer >= 1 or null`; `expected` has its own."""
    if "expected" in schema:
        return str(schema["expected"])
    if "anyOf" in schema:
        return " or ".join(describe(arm) for arm in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(str(name) for name in schema['enum'])}"
    if "const" in schema:
        return f"{schema['const']!r}"
    words = _KINDS.get(schema.get("type", ""), "a mapping of settings")
    limits = [f"{sign} {schema[key]}" for key, sign in _LIMITS.items() if key in schema]
    return f"{words} {' and '.join(limits)}" if limits else words
