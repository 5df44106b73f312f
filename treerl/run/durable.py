"""Files that survive a crash: written beside, forced to the disk, published by one rename."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from treerl.errors import StorageError, first_line, printable

_DRAFT = ".draft-"  # before a name: not yet published, nobody's after a crash
_DISCARDED = ".discarded-"


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns an error of the operating system or of safetensors about `path` into `StorageError`."""
    try:
        yield
    except OSError as error:
        text = f"{path}: {error.strerror or error}"
        if error.errno == errno.ENOSPC:
            text = f"{text}; {_free(path)}"
        raise StorageError(printable(text)) from error
    except SafetensorError as error:
        raise StorageError(printable(f"{path}: {first_line(error)}")) from error


def publish_file(path: Path, text: str) -> None:
    """Write a text; whoever looks sees the old content or the new one, whole."""
    draft = path.with_name(f"{_DRAFT}{path.name}.{os.getpid()}")
    with storing(path):
        try:
            draft.unlink(missing_ok=True)  # which may be a link to a file that is not ours
            with draft.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            _sync(path.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def publish_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `path` of what `fill` writes; it appears whole, with everything on the disk.

    What `fill` leaves half done is taken away again.
    """
    draft = path.with_name(f"{_DRAFT}{path.name}.{os.getpid()}")
    with storing(path):
        try:
            draft.mkdir(parents=True)
            fill(draft)
            _sync_below(draft)
            draft.rename(path)
            _sync(path.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def discard(folder: Path) -> None:
    """Remove a published folder: gone under its name at once, whatever happens meanwhile."""
    with storing(folder):
        grave = folder.with_name(f"{_DISCARDED}{folder.name}.{os.getpid()}")
        folder.rename(grave)
        shutil.rmtree(grave)


def sweep(folder: Path) -> None:
    """Remove what a killed process left behind; nobody else may be writing there."""
    with storing(folder):
        for path in sorted(folder.glob(".*")):
            if not is_draft(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def is_draft(path: Path) -> bool:
    """Whether a file or folder is one that was not published, or is being removed."""
    return path.name.startswith((_DRAFT, _DISCARDED))


def require_space(folder: Path, needed: int) -> None:
    """`StorageError` when `folder` has no room for so many bytes."""
    with storing(folder):
        free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        text = f"{folder}: a checkpoint needs {_size(needed)}, {_size(free)} are free"
        raise StorageError(printable(text))


def force(path: Path) -> None:
    """Force a file that was appended to onto the disk."""
    with storing(path):
        if path.exists():
            _sync(path)


def _sync_below(folder: Path) -> None:
    """Force every file and folder to the disk, and give files the mode that others have.

    safetensors makes its files readable for their owner alone.
    """
    mode = 0o666 & ~_umask()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.chmod(mode)
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _existing(path: Path) -> Path:
    """The nearest folder above, or the path itself, that there is."""
    return next((place for place in (path, *path.absolute().parents) if place.exists()), path)


def _free(path: Path) -> str:
    try:
        return f"{_size(shutil.disk_usage(_existing(path)).free)} are free"
    except OSError:
        return "how much is free is not known"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count:,} bytes"
