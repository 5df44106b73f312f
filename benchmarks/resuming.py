"""Faults, on purpose: runs that are killed or stopped at random moments, and taken up again.

    python benchmarks/resuming.py kills 200      SIGKILL at random moments, several times a run
    python benchmarks/resuming.py stops 100      SIGTERM, SIGINT or SIGHUP at random moments
    python benchmarks/resuming.py every 30       SIGTERM in each of so many iterations

Runs are small (two linear layers), so that only the machinery takes time; each is compared with one
that was never ended: tensors, adapter, metrics rows, samples, trees, evaluation, alarms.
"""

import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path

import torch

from treerl.errors import TreerlError
from treerl.run import checkpoints

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ended_runs import KINDS, figures, litter, prepare, run, stopping

_LONGER = ("train.iterations=8", "evaluate.every=3")
lengths: dict[str, float] = {}  # seconds of an undisturbed run


def take(folder: Path, kind: str, *sets: str) -> None:
    """Begin the run or go on with it."""
    run(folder, *_LONGER, *KINDS[kind], *sets, resume="auto")


def child(work: Callable[[], None]) -> int:
    """Fork; the child's process id. It ends with our exit codes."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        work()
        code = 0
    except TreerlError as error:
        code = error.code
        if code in (1, 2, 3, 4, 5, 6):
            print(f"    {error}", flush=True)
    except KeyboardInterrupt:  # before the run has its own handler, as on the command line
        code = 130
    finally:
        os._exit(code)


def ended(process: int) -> int:
    """The exit code of a child; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def interrupted(
    folder: Path, kind: str, length: float, kinds: Sequence[int]
) -> tuple[int, list[str]]:
    """Signals at random moments until the run is done: how many there were, and what was wrong."""
    wrong: list[str] = []
    count = 0
    while True:
        process = child(partial(take, folder, kind))
        # the last try of many is left alone, so that every trial ends
        number = random.choice(kinds) if count < 6 else 0
        time.sleep(random.uniform(0, length))
        done = os.waitpid(process, os.WNOHANG)
        if done[0] == 0 and number:
            os.kill(process, number)
            count += 1
            began = time.monotonic()
        code = os.waitstatus_to_exitcode(done[1]) if done[0] else ended(process)
        if code == 0:
            return count, wrong
        expected = -number if number == signal.SIGKILL else 128 + number
        if code not in (expected, -number):
            return count, [*wrong, f"exit code {code} after signal {number}"]
        lag = time.monotonic() - began
        if number != signal.SIGKILL and lag > 5:
            wrong.append(f"{lag:.1f} s after signal {number}")
        if code == 128 + number and finished(folder) != saved(folder):
            wrong.append(f"{finished(folder)} iterations finished, {saved(folder)} saved")


def finished(folder: Path) -> int:
    """Iterations whose row was written."""
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def saved(folder: Path) -> int:
    """The iteration of the newest checkpoint."""
    numbers = [checkpoints.number(path) for path in checkpoints.everyone(folder / "checkpoints")]
    return max(numbers, default=0)


def trials(count: int, kinds: Sequence[int]) -> bool:
    """Runs that are ended at random, against runs that are not; whether all were alike."""
    signals = 0
    identical = 0
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        whole = Path(f"whole-{kind.replace(' ', '-')}")
        if not whole.exists():
            began = time.monotonic()
            ended(child(partial(take, whole, kind)))
            lengths[kind] = time.monotonic() - began
        folder = Path(f"run-{number}")
        sent, wrong = interrupted(folder, kind, lengths[kind], kinds)
        signals += sent
        if not wrong and figures(folder) == figures(whole) and not litter(folder):
            identical += 1
        else:
            print(
                f"run {number} ({kind}): {wrong or litter(folder) or 'other figures'}", flush=True
            )
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{count} runs, {signals} signals: {identical} identical")
    return identical == count


def every(count: int) -> bool:
    """Runs that are stopped in one iteration after the other; whether all ended as one that is
    not."""
    identical = 0
    for kind in KINDS:
        whole = Path(f"whole-{kind.replace(' ', '-')}")
        sets = (f"train.iterations={count}", "train.save_every=0")
        ended(child(partial(take, whole, kind, *sets)))
        for iteration in range(count):
            folder = Path(f"run-{iteration}")
            code = ended(child(partial(stopped, folder, kind, iteration, sets)))
            kept = saved(folder)
            last = ended(child(partial(take, folder, kind, *sets)))
            alike = figures(folder) == figures(whole) and not litter(folder)
            if (code, kept, last) == (143, iteration, 0) and alike:
                identical += 1
            else:
                said = f"exit code {code}, {kept} saved, then {last}, alike: {alike}"
                print(f"{kind}, stopped in iteration {iteration + 1}: {said}", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(KINDS)} runs, stopped in each of {count} iterations: {identical} identical")
    return identical == count * len(KINDS)


def stopped(folder: Path, kind: str, most: int, sets: Sequence[str]) -> None:
    """The run, until a signal comes in the iteration after so many."""
    with stopping(most):
        take(folder, kind, *sets)


@contextmanager
def prepared() -> Iterator[None]:
    """While inside, the current folder is a new one with what small runs need."""
    importlib.import_module("peft")  # here, and not in every child
    torch.set_num_threads(1)
    random.seed(0)
    with tempfile.TemporaryDirectory() as place, chdir(place):
        prepare(Path(place))
        yield


def main(words: list[str]) -> int:
    what = words[0] if words else ""
    count = int(words[1]) if len(words) > 1 else 20
    with prepared():
        if what == "kills":
            right = trials(count, [signal.SIGKILL])
        elif what == "stops":
            right = trials(count, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        elif what == "every":
            right = every(count)
        else:
            sys.exit(__doc__)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
