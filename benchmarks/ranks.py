"""Seconds of an iteration in one process and in two, in interleaved pairs.

    python benchmarks/ranks.py [PAIRS] [ITERATIONS]

Every trial is `treerl run` on the tiny model with one thread a process; the table counts the
seconds of iterations after the first, as metrics.jsonl has them.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def trial(processes: int, iterations: int) -> float:
    """Mean seconds of an iteration after the first."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    settings = {
        "train.iterations": iterations,
        "train.threads": 1,
        "train.prompts_per_iteration": 8,
        "evaluate.max_prompts": 2,
    }
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *launcher, "-m", "treerl", "run", "--output", "run", *sets]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        rows = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    return statistics.fmean(json.loads(row)["seconds"] for row in rows[1:])


def main() -> None:
    words = [int(word) for word in sys.argv[1:]]
    pairs, iterations = (*words, *(3, 6)[len(words) :])
    ratios = []
    print("pair   1 process   2 processes   ratio")
    for number in range(pairs):
        one = trial(1, iterations)
        two = trial(2, iterations)
        ratios.append(one / two)
        print(f"{number + 1:>4}   {one:>7.2f} s   {two:>9.2f} s   {one / two:>5.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
