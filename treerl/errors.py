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
    """The first line of somebody else's error, to be quoted in one of ours."""
    lines = str(error).strip().splitlines()
    return printable(lines[0].rstrip(".")) if lines else type(error).__name__


def printable(text: str) -> str:
    """Text from outside for a terminal: control characters and lone surrogates are spelled out."""
    return "".join(letter if _harmless(letter) else ascii(letter)[1:-1] for letter in text)


def _harmless(letter: str) -> bool:
    code = ord(letter)
    if code < 32:
        return letter == "\n"
    # C1 controls, and the marks that turn the direction of writing
    hidden = 127 <= code < 160 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return not hidden and not 0xD800 <= code < 0xE000
