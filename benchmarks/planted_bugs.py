"""Planted bugs: does each of them turn a test red that stands near to it?

    python benchmarks/planted_bugs.py [--only WORD] [--jobs N]

planted_bugs.yaml beside this script lists them. In a copy of the checkout the named tests run once
as they are, and must be green; then every bug is planted alone, and the tests named for it run
again. Exit code 1 when one survives, or when a run of tests says neither yes nor no.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Literal, TypeVar

import yaml

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
SHELVES = ("backbones", "rewards", "envs")  # subpackages that stand at the top of the repository
PATIENCE = 300.0  # seconds for the tests of one bug
GREEN = 0  # exit codes of pytest
RED = 1
VERDICTS = {"green": "SURVIVED", "red": "caught", "unknown": "UNKNOWN"}


@dataclass(frozen=True)
class Bug:
    """One change of one place that a test must see."""

    what: str  # the bug, in words
    file: str
    old: str  # stands exactly once in the file
    new: str
    tests: tuple[str, ...]  # as pytest takes them

    @property
    def room(self) -> str:
        """The module that it is planted in, for people and for `--only`."""
        return self.file.removesuffix(".py").removeprefix("treerl/")

    def planted(self, source: str) -> str:
        """The source with the bug in it; `ValueError` when its place is not there just once."""
        if source.count(self.old) != 1:
            times = source.count(self.old)
            raise ValueError(f"{self.file}: expected once, found {times} times: {self.old!r}")
        return source.replace(self.old, self.new)


@dataclass(frozen=True)
class Outcome:
    """What a run of tests said."""

    colour: Literal["green", "red", "unknown"]
    detail: str  # the tests, the first that failed, or why it is not known


def read() -> list[Bug]:
    """All bugs of the list."""
    entries = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    bugs = []
    for entry in entries:
        tests = tuple(_tests(name) for name in entry.pop("tests"))
        bugs.append(Bug(**entry, tests=tests))
    return bugs


def _tests(name: str) -> str:
    """`run` is tests/test_run.py, `run::test_x` one test of it."""
    file, colons, test = name.partition("::")
    return f"tests/test_{file}.py{colons}{test}"


def copy(target: Path) -> None:
    """The checkout as it stands, in another folder, without what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for shelf in SHELVES:  # an installed checkout knows its own shelves alone
        (target / "treerl" / shelf).symlink_to(Path("..", shelf))


def environment(place: Path) -> dict[str, str]:
    """Without bytecode: a file that changes twice in a second would be taken for the old one."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(place), str(place / "tests")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def require_own_code(place: Path) -> None:
    """`RuntimeError` when Python would import another treerl than the one in `place`."""
    names = ["treerl", *(f"treerl.{shelf}" for shelf in SHELVES)]
    code = f"import {', '.join(names)}, sys\nfor n in {names}: print(sys.modules[n].__file__)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=place, env=environment(place), capture_output=True, check=True, text=True
    )
    for file in done.stdout.splitlines():
        if not Path(file).is_relative_to(place):
            raise RuntimeError(f"expected code of {place}, got {file}")


def run_tests(place: Path, tests: Sequence[str]) -> Outcome:
    """What pytest says of these files, up to the first test that fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    process = subprocess.Popen(
        command,
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Outcome("unknown", f"no answer within {PATIENCE:.0f} s")
    failed = [line for line in printed.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if process.returncode == GREEN:
        return Outcome("green", " ".join(tests))
    if process.returncode == RED and failed:
        return Outcome("red", failed[0].split(" - ")[0].removeprefix("FAILED "))
    return Outcome("unknown", printed[-2000:])


def judge(bug: Bug, place: Path) -> Outcome:
    """Plant a bug in a copy, run its tests, and take it out again."""
    path = place / bug.file
    source = path.read_text(encoding="utf-8")
    try:
        path.write_text(bug.planted(source), encoding="utf-8")
        return run_tests(place, bug.tests)
    finally:
        path.write_text(source, encoding="utf-8")


def in_turn(work: Callable[[T, Path], bool], items: Sequence[T], places: Sequence[Path]) -> int:
    """Each item in a copy that is free; how many of them went wrong."""
    free: Queue[Path] = Queue()
    for place in places:
        free.put(place)

    def one(item: T) -> bool:
        place = free.get()
        try:
            return work(item, place)
        finally:
            free.put(place)

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, items)).count(False)


def is_green(tests: str, place: Path) -> bool:
    outcome = run_tests(place, [tests])
    if outcome.colour != "green":
        print(f"not green without a bug: {outcome.detail}", flush=True)
    return outcome.colour == "green"


def is_caught(bug: Bug, place: Path) -> bool:
    outcome = judge(bug, place)
    verdict = VERDICTS[outcome.colour]
    print(f"{verdict:9} {bug.room}: {bug.what} [{outcome.detail}]", flush=True)
    return outcome.colour == "red"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="bugs with this word in their room or words")
    parser.add_argument("--jobs", type=int, default=1, help="copies that are worked in at once")
    chosen = parser.parse_args()
    bugs = [bug for bug in read() if chosen.only in f"{bug.room}: {bug.what}"]
    for bug in bugs:
        bug.planted((ROOT / bug.file).read_text(encoding="utf-8"))
    tests = sorted({name for bug in bugs for name in bug.tests})
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder).resolve() / str(number) for number in range(chosen.jobs)]
        for place in places:
            copy(place)
            require_own_code(place)
        if in_turn(is_green, tests, places) > 0:
            return 1
        left = in_turn(is_caught, bugs, places)
    print(f"{len(bugs)} bugs, {len(bugs) - left} caught")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
