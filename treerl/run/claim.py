"""Makes the folder of a run, which one run alone gets, and holds it while a process works there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from treerl.errors import InputError, TreerlError, printable
from treerl.run import reading
from treerl.run.durable import is_draft, storing

_FOLDERS = ("samples", "trees", "checkpoints")
_LOCK = ".lock"  # held by the process that works on the run
_BEFORE_MANIFEST = (_LOCK, "config.yaml", "plugins")


@dataclass(frozen=True)
class Claim:
    """A folder that is ours."""

    path: Path
    folders: tuple[Path, ...]  # the folders that did not exist before, parents first

    def give_back(self) -> None:
        """Take away what was made for a run that cannot begin; others' files stay."""
        with suppress(OSError):
            (self.path / _LOCK).unlink()
        for folder in reversed(self.folders):
            with suppress(OSError):
                folder.rmdir()


def claim(output: Path | None, recipe: str, leftover: bool = False) -> Claim:
    """Make the folder of a run, which no other run gets: `output` or the next runs/RECIPE-NNNN.

    With `leftover` it may be one that a run left which was killed before it began.
    """
    if output is not None:
        if leftover and _is_leftover(output):
            return Claim(output, ())
        folders = _take(output)
        if folders is None:
            raise _taken(output)
        return Claim(output, folders)
    runs = Path("runs")
    prefix = f"{recipe}-"
    names = [path.name.removeprefix(prefix) for path in runs.glob("*")]
    number = max((int(name) for name in names if name.isdecimal()), default=0) + 1
    while (folders := _take(runs / f"{recipe}-{number:04d}")) is None:
        number += 1
    return Claim(runs / f"{recipe}-{number:04d}", folders)


def refuse_taken(output: Path) -> None:
    """What `claim` would refuse about a named folder, without making one.

    A run's folder is left alone: that run may be what is to go on.
    """
    with storing(output):
        if os.path.isfile(output / "manifest.json"):
            return
        try:
            output.lstat()
        except FileNotFoundError:
            above = next(parent for parent in output.parents if os.path.lexists(parent))
            if not os.access(above, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
            return
        if not output.is_dir() or any(output.iterdir()):
            raise _taken(output)


def _taken(output: Path) -> InputError:
    text = f"output: {output} exists and is not empty; name another folder"
    return InputError(printable(text))


def _take(path: Path) -> tuple[Path, ...] | None:
    """Make `path` a run's folder; the folders that were made, None where it is another run's.

    An empty folder may be there already: of two runs that both see one, the one that makes
    `samples` has it.
    """
    folders: list[Path] = []
    with storing(path):
        if os.path.lexists(path) and not path.is_dir():
            return None
        try:
            for folder in (*reversed(path.parents), path):
                if _make(folder):
                    folders.append(folder)
            if path not in folders and any(path.iterdir()):
                return None
            for name in _FOLDERS:
                if not _make(path / name):
                    return None
                folders.append(path / name)
        except OSError:
            Claim(path, tuple(folders)).give_back()
            raise
    return tuple(folders)


def _is_leftover(path: Path) -> bool:
    """Whether all that lies there is what a run makes before its manifest."""
    with storing(path):
        if not path.is_dir():
            return False
        inside = {entry.name for entry in path.iterdir() if not is_draft(entry)}
        if "samples" not in inside or inside - {*_FOLDERS, *_BEFORE_MANIFEST}:
            return False
        for name in _FOLDERS:
            (path / name).mkdir(exist_ok=True)
            if any((path / name).iterdir()):
                return False
    return True


def _make(folder: Path) -> bool:
    """Make one folder; False where it is there already."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir()
    except FileExistsError:  # made since we looked, or a file
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While inside, no other process works on the run; `InputError` names the one that does."""
    reading.refuse_links(path)
    lock = FileLock(path / _LOCK)
    with storing(path / _LOCK):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(printable(f"{path}: in use by {_worker(path)}")) from error
    try:
        yield
    finally:
        lock.release()


def _worker(path: Path) -> str:
    try:
        process = reading.read_manifest(path).process
    except TreerlError:
        process = None
    if process is None:
        return "another process"
    return f"process {process.pid} on {process.host}"
