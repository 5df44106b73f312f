"""How often the alarm of a watched reward goes off: in runs whose reward is hackable, and in healthy ones.

    python benchmarks/alarm.py --seeds 20 --output DIR

Hackable: the tiny model is paid for large JPEG files (`--reward jpeg=-1`), and the judge of its captions is watched.
Healthy: it is paid for its captions, and the cleanness of its images is watched.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

import treerl
from treerl.engine.task import Samples
from treerl.reward.contract import Reward

KINDS = {
    "hackable": ["--reward", "jpeg=-1", "--watch", "shapes"],
    "healthy": ["--reward", "shapes", "--watch", f"{Path(__file__).resolve()}:Clean"],
}


class Clean(Reward):
    """Minus what is unexplained in the image."""

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`."""
        unexplained: Tensor = treerl.load("rewards", "shapes")().measures(samples)["unexplained"]
        return -unexplained


def train(kind: str, seed: int, folder: Path, sets: Sequence[str]) -> dict[str, Any]:
    """The manifest of one run."""
    run = folder / f"{kind}-{seed}"
    if not (run / "manifest.json").is_file():
        words = [
            sys.executable,
            "-m",
            "treerl",
            "run",
            "--output",
            str(run),
            "--allow-plugins",
            *KINDS[kind],
        ]
        words += [part for one in [f"seed={seed}", *sets] for part in ("--set", one)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument(
        "--set", action="append", default=["train.iterations=20", "evaluate.samples=2"], dest="sets"
    )
    options = parser.parse_args()
    print("| run | alarms | reward | watched |\n|---|---|---|---|")
    for kind in options.kinds:
        made = [train(kind, seed, options.output, options.sets) for seed in range(options.seeds)]
        rang = sum(bool(one["alarms"]) for one in made)
        trained = [mean(made, when, lambda one: one["reward"]) for when in ("before", "after")]
        watched = [
            mean(made, when, lambda one: next(iter(one["watched"].values())))
            for when in ("before", "after")
        ]
        figures = [f"{before:.3f} → {after:.3f}" for before, after in (trained, watched)]
        print(f"| {kind} | {rang} of {len(made)} | {' | '.join(figures)} |", flush=True)


def mean(made: Sequence[dict[str, Any]], when: str, figure: Any) -> float:
    """Over runs, of a figure of their evaluation."""
    return sum(float(figure(one["evaluation"][when])) for one in made) / len(made)


if __name__ == "__main__":
    main()
