"""A run of a tiny model over several seeds: before and after on held-out captions.

python benchmarks/seeds.py --seeds 5 --output DIR [--backbone flux] [--set dotted.path=value ...]
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

QUALITY = ("contrast", "roughness", "saturation", "diversity")


def row(seed: int, run: Path) -> str:
    """One line of the table."""
    manifest: dict[str, Any] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    before, after = manifest["evaluation"]["before"], manifest["evaluation"]["after"]
    cells = [str(seed)]
    for name in ("right", "unexplained"):
        cells.append(f"{before['measures'][name]:.3f} → {after['measures'][name]:.3f}")
    cells += [f"{before['quality'][name]:.3f} → {after['quality'][name]:.3f}" for name in QUALITY]
    cells.append(f"{sum(manifest['seconds'].values()):.0f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--backbone", help="whose tiny model; the default run without it")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    options = parser.parse_args()
    print(f"| seed | right | unexplained | {' | '.join(QUALITY)} | seconds |")
    print("|" + "---|" * (len(QUALITY) + 4))
    chosen = ["--backbone", options.backbone, "--model", "tiny"] if options.backbone else []
    for seed in range(options.seeds):
        run = options.output / f"seed-{seed}"
        if not (run / "manifest.json").is_file():
            words = [sys.executable, "-m", "treerl", "run", "--output", str(run), *chosen]
            for setting in [f"seed={seed}", *options.sets]:
                words += ["--set", setting]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        print(row(seed, run), flush=True)


if __name__ == "__main__":
    main()
