"""Damage, on purpose: broken checkpoints, crashes between two file operations, disks that are full.

    python benchmarks/damage.py flips 300      one byte of a checkpoint changed
    python benchmarks/damage.py points         a crash before each file operation of a run
    python benchmarks/damage.py again          the same of a run that goes on after a crash
    python benchmarks/damage.py full 20        files that may not grow beyond so many limits

Runs are small, and compared as `resuming.py` beside this script compares them.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from resuming import child, ended, prepared, take

from treerl.errors import TreerlError
from treerl.run import checkpoints

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ended_runs import figures, litter


def flips(count: int) -> bool:
    """A byte changed, a file cut off, missing or too many; whether no checkpoint still loads."""
    take(Path("run"), "two rewards")
    last = checkpoints.newest(Path("run/checkpoints"))
    number = json.loads(Path("run/manifest.json").read_text())["run"]
    files = [path for path in sorted(last.rglob("*")) if path.is_file()]
    silent = 0
    tried = 0
    for path in files:
        whole = path.read_bytes()
        damages = [whole[: len(whole) // 2], b"", whole + b"\0"]
        for _ in range(-(-count // len(files))):
            damaged = bytearray(whole)
            damaged[random.randrange(len(whole))] ^= 1 << random.randrange(8)
            damages.append(bytes(damaged))
        for content in damages:
            path.write_bytes(content)
            silent += loads(last, number)
            tried += 1
        path.unlink()
        silent += loads(last, number)
        path.write_bytes(whole)
        tried += 1
    (last / "foreign").touch()
    silent += loads(last, number)
    print(f"{tried + 1} damages of {len(files)} files: {silent} loaded")
    return silent == 0


def loads(path: Path, number: str) -> bool:
    """Whether a checkpoint is taken for whole."""
    try:
        checkpoints.load(path, number)
    except TreerlError:
        return False
    return True


def full(count: int) -> bool:
    """Limits on the size of a file, from a few bytes to almost all that the run writes; whether
    each is told, and made up for."""
    ended(child(partial(take, Path("whole"), "lora")))
    largest = max(path.stat().st_size for path in Path("whole").rglob("*"))
    wrong = 0
    for number in range(count):
        folder = Path(f"full-{number}")
        limit = largest * (number + 1) // (count + 1)
        code = ended(child(partial(limited, folder, limit)))
        last = ended(child(partial(take, folder, "lora")))
        if (code, last) != (4, 0) or figures(folder) != figures(Path("whole")) or litter(folder):
            print(f"{limit} bytes: exit code {code}, then {last}, {litter(folder)}", flush=True)
            wrong += 1
    print(f"{count} limits up to {largest} bytes: {wrong} wrong")
    return wrong == 0


def limited(folder: Path, limit: int) -> None:
    """A run whose files the system does not let grow."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    take(folder, "lora")


_OPERATIONS = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "shutil.rmtree",
)


def points() -> bool:
    """A crash before every file operation under the run folder, from its first to its last;
    whether each is made up for."""
    total, wrong = crashes(None)
    print(f"{total} crash points: {wrong} wrong")
    return wrong == 0


def again() -> bool:
    """The same when the run goes on after a crash in its middle, and is taken up a third time."""
    ended(child(partial(counting, Path("counted").resolve())))
    first = int(Path("count").read_text())
    total = 0
    wrong = 0
    for start in (first // 3, first // 2, first * 2 // 3):
        left = Path(f"left-{start}").resolve()
        ended(child(partial(crashing, left, start)))
        count, bad = crashes(left)
        print(f"after a crash at {start} of {first}: {count} crash points, {bad} wrong", flush=True)
        total += count
        wrong += bad
    print(f"{total} crash points of runs that go on: {wrong} wrong")
    return wrong == 0


def crashes(left: Path | None) -> tuple[int, int]:
    """How many points a run has that begins, or goes on with what is `left`, and how many of them
    it does not recover from."""
    whole = Path("whole")
    if not whole.exists():
        ended(child(partial(take, whole, "lora")))
    total = 0
    wrong = 0
    while True:
        folder = Path(f"point-{total}").resolve()
        if left is not None:
            shutil.copytree(left, folder)
        code = ended(child(partial(crashing, folder, total)))
        if code == 0:
            shutil.rmtree(folder)
            return total, wrong
        last = ended(child(partial(take, folder, "lora")))
        if last != 0 or figures(folder) != figures(whole) or litter(folder):
            print(f"point {total}: exit code {last}, {litter(folder)}", flush=True)
            wrong += 1
        shutil.rmtree(folder)
        total += 1


def crashing(folder: Path, point: int) -> None:
    """A run that ends without a word before its file operation `point`."""
    left = [point]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if changes(event, arguments, folder):
            if left[0] == 0:
                os._exit(77)
            left[0] -= 1

    sys.addaudithook(hook)
    take(folder, "lora")


def counting(folder: Path) -> None:
    """A run; how many file operations it has is left in the file `count`."""
    seen = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        seen[0] += changes(event, arguments, folder)

    sys.addaudithook(hook)
    take(folder, "lora")
    Path("count").write_text(str(seen[0]))


def changes(event: str, arguments: tuple[Any, ...], folder: Path) -> bool:
    """Whether what Python is about to do changes a file below the folder."""
    if event not in _OPERATIONS or str(folder) not in str(arguments[0]):
        return False
    written = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    return event != "open" or bool(int(arguments[2]) & written)


def main(words: list[str]) -> int:
    what = words[0] if words else ""
    count = int(words[1]) if len(words) > 1 else 20
    with prepared():
        if what == "flips":
            right = flips(count)
        elif what == "points":
            right = points()
        elif what == "again":
            right = again()
        elif what == "full":
            right = full(count)
        else:
            sys.exit(__doc__)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
