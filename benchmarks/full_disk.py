"""Disks that are full as a whole, on purpose, after a part of what a run writes.

    python benchmarks/full_disk.py 20       so many parts, from little to almost all

The run folder lies on a small file system in memory, which this process alone sees (Linux, and the
right to mount); others' file fills it but for so many bytes. Runs are small, and compared as
`resuming.py` beside this script compares them.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from resuming import child, ended, prepared, take

from treerl.errors import TreerlError
from treerl.run import checkpoints

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ended_runs import figures, litter

_OWN_MOUNTS = 0x20000  # CLONE_NEWNS of Linux
_DISK = 64 << 20  # bytes
_SIZE = r"[\d,.]+ (MB|bytes)"
_REFUSED = re.compile(rf"a checkpoint needs {_SIZE}, {_SIZE} are free")
_BROKE_OFF = re.compile(rf"No space left on device; {_SIZE} are free")
_WHOLE = Path("whole")  # an undisturbed run


def trials(count: int) -> bool:
    """Runs that find the disk full, and go on when there is room again; whether all do."""
    with small_disk() as disk:
        free = shutil.disk_usage(disk).free
        ended(child(partial(take, disk / "run", "lora")))
        needed = free - shutil.disk_usage(disk).free
        shutil.copytree(disk / "run", _WHOLE)
    refused = 0
    older = 0
    wrong = 0
    for number in range(count):
        budget = needed * (number + 1) // (count + 1)
        with small_disk() as disk:
            said, kept, right = tried(disk, budget)
        refused += bool(_REFUSED.search(said))
        older += kept
        if not right or not (_REFUSED.search(said) or _BROKE_OFF.search(said)):
            print(f"{budget} bytes: {said}", flush=True)
            wrong += 1
    print(f"{refused} had no room for a checkpoint, {older} had an older one, which is whole")
    print(f"{count} disks with room for up to {budget} of {needed} bytes: {wrong} wrong")
    return wrong == 0


def tried(disk: Path, budget: int) -> tuple[str, bool, bool]:
    """What a run says that finds the disk full, whether it had a checkpoint, and if all is right:
    exit code 4, checkpoints that are whole, and the end of an undisturbed run once there is room.
    """
    folder = disk / "run"
    fill(disk, budget)
    code = ended(child(partial(told, folder)))
    said = Path("said").read_text()
    saved = checkpoints.everyone(folder / "checkpoints")
    whole = all(is_whole(path) for path in saved)
    (disk / "others").unlink()
    last = ended(child(partial(take, folder, "lora")))
    alike = last == 0 and figures(folder) == figures(_WHOLE) and not litter(folder)
    return said or f"exit code {code}", bool(saved), code == 4 and whole and alike


def is_whole(path: Path) -> bool:
    """Whether all files of a checkpoint are as they were written."""
    try:
        checkpoints.verify(path)
    except TreerlError:
        return False
    return True


def told(folder: Path) -> None:
    """The run, whose error is written where there is room."""
    Path("said").write_text("")
    try:
        take(folder, "lora")
    except TreerlError as error:
        Path("said").write_text(str(error))
        raise


@contextmanager
def small_disk() -> Iterator[Path]:
    """An empty file system in memory."""
    disk = Path("disk").resolve()
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(disk)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path, budget: int) -> None:
    """Leave room for so many bytes."""
    with (disk / "others").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - budget)


def mounts_of_its_own() -> bool:
    """From now on mount for this process and its children alone; False where that may not be."""
    try:
        if ctypes.CDLL(None).unshare(_OWN_MOUNTS) != 0:
            return False
        subprocess.run(["mount", "--make-rprivate", "/"], check=True, capture_output=True)
        with small_disk():
            return True
    except (OSError, AttributeError, subprocess.CalledProcessError):
        return False


def main(words: list[str]) -> int:
    with prepared():
        if not mounts_of_its_own():
            print("full_disk.py: a file system must be mounted: it needs Linux, and root's rights")
            return 2
        right = trials(int(words[0]) if words else 20)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
