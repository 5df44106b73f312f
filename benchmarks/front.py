"""Two rewards on the tiny model under two weightings: where on their front each ends.

python benchmarks/front.py --seeds 3 --output DIR
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

WEIGHTS = ((4, 1), (1, 4))  # of the captions' judge and of small files
_SETS = ("recipe=treegrpo", "train.iterations=75")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    options = parser.parse_args()
    titles = "shapes : jpeg | seed | drawn right | shapes, last iteration | kilobytes, first → last"
    print(f"| {titles} |")
    print("|---|---|---|---|---|")
    for shapes, jpeg in WEIGHTS:
        for seed in range(options.seeds):
            run = options.output / f"{shapes}-{jpeg}-{seed}"
            if not (run / "manifest.json").is_file():
                words = [sys.executable, "-m", "treerl", "run", "--output", str(run)]
                words += ["--reward", f"shapes={shapes}", "--reward", f"jpeg={jpeg}"]
                for setting in [*_SETS, f"seed={seed}", *options.sets]:
                    words += ["--set", setting]
                subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            print(row(run, f"{shapes} : {jpeg}", seed), flush=True)


def row(run: Path, weights: str, seed: int) -> str:
    """One line of the table."""
    manifest: dict[str, Any] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    lines = [
        json.loads(line)["rewards"]
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    right = [
        f"{manifest['evaluation'][when]['measures']['right']:.3f}" for when in ("before", "after")
    ]
    size = f"{-lines[0]['jpeg']:.3f} → {-lines[-1]['jpeg']:.3f}"
    return f"| {weights} | {seed} | {' → '.join(right)} | {lines[-1]['shapes']:.3f} | {size} |"


if __name__ == "__main__":
    main()
