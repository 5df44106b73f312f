"""One process against two: seconds of an iteration, and how far apart the weights come to lie.

    python benchmarks/ranks.py seconds [PAIRS] [ITERATIONS]
    python benchmarks/ranks.py weights [ITERATIONS] [FOLDER]

`seconds` runs both in interleaved pairs, and counts the iterations after the first. `weights` runs
75 iterations of `treegrpo` three times, in one process, in two, and in one with micro-batches of
half the size, and prints the largest relative difference of a trained tensor to the first run after
each iteration: two processes add up in another order, and so do other micro-batches.

Every trial is `treerl run` on the tiny model with one thread a process. A folder that is named is
kept, and what is done in it is not done again.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

_LIMITS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def train(folder: Path, processes: int, settings: Mapping[str, object]) -> list[dict[str, Any]]:
    """The metrics of a run by so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launcher, "-m", "treerl", "run", "--output", str(folder)]
    command += ["--resume", "auto"]
    for name, value in {"recipe": "treegrpo", "train.threads": 1, **settings}.items():
        command += ["--set", f"{name}={value}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]


def trial(processes: int, iterations: int) -> float:
    """Mean seconds of an iteration after the first."""
    settings = {
        "train.iterations": iterations,
        "train.prompts_per_iteration": 8,
        "evaluate.max_prompts": 2,
    }
    with tempfile.TemporaryDirectory() as folder:
        rows = train(Path(folder, "run"), processes, settings)
    return statistics.fmean(row["seconds"] for row in rows[1:])


def seconds(pairs: int = 3, iterations: int = 6) -> None:
    ratios = []
    print("pair   1 process   2 processes   ratio")
    for number in range(pairs):
        alone = trial(1, iterations)
        two = trial(2, iterations)
        ratios.append(alone / two)
        print(
            f"{number + 1:>4}   {alone:>7.2f} s   {two:>9.2f} s   {alone / two:>5.2f}", flush=True
        )
    print(f"median ratio {statistics.median(ratios):.2f}")


def weights(iterations: int, folder: Path) -> None:
    kept = {
        "train.iterations": iterations,
        "train.save_every": 1,
        "train.keep_last": iterations,
    }
    metrics = {"one": train(folder / "one", 1, kept)}
    metrics["two"] = train(folder / "two", 2, kept)
    metrics["halved"] = train(folder / "halved", 1, kept | {"train.micro_batch_size": 12})
    apart: dict[str, list[float]] = {"two": [], "halved": []}
    print("after   two processes   half micro-batches   reward: one, two, halved")
    for iteration in range(1, iterations + 1):
        for name, distances in apart.items():
            distances.append(distance(folder / "one", folder / name, iteration))
        rewards = "  ".join(f"{rows[iteration - 1]['reward']:.6f}" for rows in metrics.values())
        print(
            f"{iteration:>5}   {apart['two'][-1]:13.1e}   {apart['halved'][-1]:18.1e}   {rewards}"
        )
    for name, distances in apart.items():
        firsts = [next((at for at, x in enumerate(distances, 1) if x > y), None) for y in _LIMITS]
        passed = [f"{y:g} after {at}" for y, at in zip(_LIMITS, firsts, strict=True) if at]
        print(f"{name}: beyond {', '.join(passed) or 'no limit'}")
    for name in metrics:
        manifest = json.loads((folder / name / "manifest.json").read_text())
        print(f"{name}: held-out reward {manifest['evaluation']['after']['reward']:.6f}")


def distance(one: Path, other: Path, iteration: int) -> float:
    """The largest relative difference of a trained tensor."""
    place = f"checkpoints/iteration-{iteration:06d}/training/tensors.safetensors"
    first = load_file(one / place)
    second = load_file(other / place)
    distances = []
    for name, tensor in first.items():
        if name.startswith("weights/"):
            distances.append(float((second[name] - tensor).norm() / tensor.norm()))
    return max(distances)


def main(words: list[str]) -> None:
    if words[:1] == ["seconds"]:
        seconds(*[int(word) for word in words[1:]])
    elif words[:1] == ["weights"]:
        iterations = int(words[1]) if len(words) > 1 else 75
        with tempfile.TemporaryDirectory() as folder:
            weights(iterations, Path(words[2] if len(words) > 2 else folder))
    else:
        print(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
