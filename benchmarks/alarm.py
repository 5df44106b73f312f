"""When the alarm of a watched reward goes off, in hackable runs and in healthy ones.

    python benchmarks/alarm.py --seeds 20 --output DIR [--jobs 2]

All are the default run. `norm`: the tiny model is paid for images far from grey, and the judge of
its captions is watched; `jpeg`: for large files (`jpeg=-1`), which spoils them more slowly; both
end at the first alarm of any kind (`train.guard=stop`). `healthy`: it is paid for its captions, and
the cleanness of its images is watched; every alarm of its 30 iterations is a false one. Held-out
images are looked at every other iteration, which is every eight updates. Exit code 1 when a healthy
run is told of, or one of `norm` not within 30 updates.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

import treerl
from treerl.engine.task import Samples
from treerl.errors import NumericsError
from treerl.reward.contract import Reward

_UPDATES = treerl.recipes["treerl"].optimizer_steps  # of an iteration
_SOON = 30  # updates
_SETS = ("train.iterations=30", "train.threads=1", "evaluate.every=2")
_HACKED = ("--watch", "shapes", "--set", "train.guard=stop")
KINDS = {
    "norm": ["--reward", f"{Path(__file__).resolve()}:Norm", *_HACKED],
    "jpeg": ["--reward", "jpeg=-1", *_HACKED],
    "healthy": ["--reward", "shapes", "--watch", f"{Path(__file__).resolve()}:Clean"],
}


class Norm(Reward):
    """How far an image is from grey: the root of the mean square, 0 to 0.5."""

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`."""
        return (samples.images - 0.5).flatten(1).square().mean(1).sqrt()


class Clean(Reward):
    """Minus what is unexplained in the image."""

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`."""
        unexplained: Tensor = treerl.load("rewards", "shapes")().measures(samples)["unexplained"]
        return -unexplained


def train(kind: str, seed: int, folder: Path, sets: Sequence[str]) -> dict[str, Any]:
    """The manifest of one run, with what its last evaluation said."""
    words = [*KINDS[kind]]
    for setting in [f"seed={seed}", *sets]:
        words += ["--set", setting]
    digest = hashlib.sha256(json.dumps([treerl.__version__, words]).encode()).hexdigest()
    run = folder / f"{kind}-{seed}-{digest[:12]}"  # what was run otherwise is not this run
    if not _ended(run):
        shutil.rmtree(run, ignore_errors=True)
        command = [sys.executable, "-m", "treerl", "run", "--output", str(run), "--allow-plugins"]
        command += words
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode not in (0, NumericsError.code):  # the guard ends a run by the latter
            raise SystemExit(done.stderr)
    manifest: dict[str, Any] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    rows = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    heldout = [row["heldout"] for row in map(json.loads, rows) if "heldout" in row]
    manifest["evaluation"]["after"] = heldout[-1]
    return manifest


def _ended(run: Path) -> bool:
    """Whether it was run before, to its end or to an alarm."""
    path = run / "manifest.json"
    if not path.is_file():
        return False
    manifest = json.loads(path.read_text(encoding="utf-8"))
    return manifest["status"] == "done" or bool(manifest["alarms"])


def updates(run: dict[str, Any]) -> list[int]:
    """The optimizer steps after which each alarm went off."""
    numbers = [re.match(r"iteration (\d+): ", alarm) for alarm in run["alarms"]]
    return [_UPDATES * int(number[1]) for number in numbers if number]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--set", action="append", default=list(_SETS), dest="sets")
    options = parser.parse_args()
    print("| run | alarms | first one, updates | reward | watched |\n|---|---|---|---|---|")
    right = True
    for kind in options.kinds:
        trained = partial(train, kind, folder=options.output, sets=options.sets)
        with ThreadPoolExecutor(options.jobs) as pool:
            runs = list(pool.map(trained, range(options.seeds)))
        first = [updates(run)[0] for run in runs if updates(run)]
        soon = sum(number <= _SOON for number in first)
        if kind == "norm":
            right &= soon == len(runs)
        elif kind == "healthy":
            right &= not any(run["alarms"] for run in runs)
        when = f"{min(first)} to {max(first)}" if first else "none"
        cells = [kind, f"{sum(bool(run['alarms']) for run in runs)} of {len(runs)}", when]
        for figure in (_reward, _watched):
            before = mean(runs, "before", figure)
            after = mean(runs, "after", figure)
            cells.append(f"{before:.3f} → {after:.3f}")
        print(f"| {' | '.join(cells)} |", flush=True)
        for text in sorted({_kind_of(alarm) for run in runs for alarm in run["alarms"]}):
            print(f"    {text}", flush=True)
        print(f"{kind}: {soon} of {len(runs)} told of within {_SOON} updates", flush=True)
    return 0 if right else 1


def _kind_of(alarm: str) -> str:
    """What it says, without its figures."""
    return re.sub(r"-?\d[\d.e+-]*", "#", alarm)


def mean(
    runs: Sequence[dict[str, Any]], when: str, figure: Callable[[dict[str, Any]], float]
) -> float:
    """Over runs, of a figure of their evaluation."""
    return sum(figure(run["evaluation"][when]) for run in runs) / len(runs)


def _reward(evaluation: dict[str, Any]) -> float:
    return float(evaluation["reward"])


def _watched(evaluation: dict[str, Any]) -> float:
    return float(next(iter(evaluation["watched"].values())))


if __name__ == "__main__":
    sys.exit(main())
