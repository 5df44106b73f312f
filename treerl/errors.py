"""Errors a user can meet: one line each, with the exit code that scripts rely on."""


class TreerlError(Exception):
    """An error that is reported as one line; `code` is the process's exit code."""

    code = 1


class InputError(TreerlError):
    """The configuration, the command line, a prompt file or a model folder is wrong."""

    code = 2


class NumericsError(TreerlError):
    """A number is not finite, or a density is refused."""

    code = 3


class StorageError(TreerlError):
    """A file could not be written or read back."""

    code = 4


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
