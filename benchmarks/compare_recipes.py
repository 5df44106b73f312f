"""Compares recipes on the built-in tiny model at equal cost (sampling + 3 x update forwards).

    python benchmarks/compare_recipes.py --budget 150000 --seeds 5 --recipe treegrpo \\
        --recipe flowgrpo:tree.trees_per_prompt=8

A recipe is NAME[:dotted.path=value,...]. Each (recipe, seed) is one line of --output (jsonl), so
that an interrupted study goes on where it stopped; --table prints the means with 95 % intervals
(Student's t over seeds).
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.run.assemble import build
from treerl.run.session import Session

T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def configure(spec: str, seed: int, sets: list[str]) -> Config:
    """The configuration of NAME[:path=value,...] with that seed, whose training has no end."""
    name, _, changes = spec.partition(":")
    endless = "train.iterations=1000000"
    own = [change for change in changes.split(",") if change]
    return resolve(None, {"recipe": name, "seed": seed}, [endless, *sets, *own])


def train(config: Config, budget: float, marks: int) -> dict[str, Any]:
    """Train until the budget is spent; held-out figures at `marks` even points, and before."""
    session = build(config)
    began = time.perf_counter()
    spent = 0.0
    curve = [{"spent": 0.0, **_judge(session)}]
    for step in session.train():
        spent += step.metrics["sampling_forwards"] + 3 * step.metrics["update_forwards"]
        if spent >= budget * len(curve) / marks:
            curve.append({"spent": spent, **_judge(session)})
        if spent >= budget:
            break
    session.close()
    return {
        "iterations": session.trainer.iteration,
        "spent": spent,
        "seconds": time.perf_counter() - began,
        "curve": curve,
    }


def _judge(session: Session) -> dict[str, float]:
    summary = session.evaluate().summary()
    return {"reward": summary["reward"], **summary["measures"], **summary["quality"]}


def interval(values: list[float]) -> str:
    """Mean ± half-width of the 95 % interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = T95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.3f} ± {half:.3f}"


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The finished runs of a study."""
    if path.is_file():
        yield from (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def table(path: Path) -> str:
    """The study as a Markdown table, best first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows(path):
        groups.setdefault(row["recipe"], []).append(row)
    measures = ("right", "reward", "unexplained", "diversity")
    titles = ["recipe", "seeds", *measures, "area under the curve of right"]
    titles += ["iterations", "seconds"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    scored = []
    for name, runs in groups.items():
        area = [statistics.fmean(point["right"] for point in run["curve"][1:]) for run in runs]
        ends = [interval([run["curve"][-1][measure] for run in runs]) for measure in measures]
        cells = [f"`{name}`", str(len(runs)), *ends, interval(area)]
        cells += [
            f"{statistics.fmean(run[key] for run in runs):.0f}" for key in ("iterations", "seconds")
        ]
        scored.append((statistics.fmean(area), "| " + " | ".join(cells) + " |"))
    return "\n".join(lines + [line for _, line in sorted(scored, reverse=True)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", action="append", default=[])
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--budget", type=float, default=150_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--marks", type=int, default=6)
    parser.add_argument("--output", type=Path, default=Path("compare_recipes.jsonl"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = {(row["recipe"], row["seed"]) for row in rows(options.output)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for recipe in options.recipe:
            if (recipe, seed) in done:
                continue
            row = {"recipe": recipe, "seed": seed, "sets": options.sets, "budget": options.budget}
            row |= train(configure(recipe, seed, options.sets), options.budget, options.marks)
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            ends = [row["curve"][0]["right"], row["curve"][-1]["right"]]
            print(
                f"{recipe} seed {seed}: right {ends[0]:.3f} -> {ends[1]:.3f} "
                f"in {row['seconds']:.0f} s",
                flush=True,
            )
    if options.table:
        print(table(options.output))


if __name__ == "__main__":
    main()
