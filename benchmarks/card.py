"""One model on one card: what its parts cost, and how near an iteration comes to their sum.

    python benchmarks/card.py --output card.json                      # on the CPU: the tiny model
    python benchmarks/card.py --backbone sd35 --model random --output card.json

On a GPU the default is the published architecture with random weights, its preset, and a ViT-H/14
of random weights for a reward: nothing is downloaded. `mid` is a Stable Diffusion 3 of 100 M
parameters on the tiny one's encoders, for a CPU. Milliseconds of the primitives, seconds of an
iteration by phase beside the floor (the plan's counts times the primitives), node by node against
batched, the recipes at 27 leaves a prompt, peak memory. On a CPU all times are those of one
thread's CPU, so that other jobs do not count.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from card_clock import Clock, Laps, Observed
from card_models import configured, session_of
from card_parts import LEAVES, Bench, Primitives, Work, floor, work
from card_report import facts, report

from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import Fixed
from treerl.engine.recipes import recipes
from treerl.engine.trainer import Trainer
from treerl.run.session import Session

# ddpo trains all steps as flowgrpo does, without its second forward for a KL
COMPARED = ("treegrpo", "dancegrpo", "mixgrpo", "ddpo")


@dataclass(frozen=True)
class Row:
    """A recipe at 27 leaves a prompt: seconds of an iteration by phase."""

    recipe: str
    how: str  # measured or predicted
    prompts: int
    counts: Work
    seconds: dict[str, float]
    computed: dict[str, float]  # by the primitives, chunks filled up
    ratio: float  # to the first recipe
    rounds: list[float]


@dataclass(frozen=True)
class Card:
    """A session whose clock knows its phases."""

    session: Session
    env: Observed
    clock: Clock
    quick: bool

    @classmethod
    def of(cls, session: Session, quick: bool) -> "Card":
        clock = Clock(session.backbone.device)
        clock.watch(session.trainer.optimizer)
        env = Observed.of(session.env, session.algorithm.kernel, clock)
        trainer = replace(session.trainer, env=env, peers=Laps(clock))
        return cls(replace(session, env=env, trainer=trainer), env, clock, quick)

    def primitives(self) -> dict[str, Primitives]:
        """With the blocks compiled where they are, eager, and of one row as simple code does it."""
        trainer = self.session.trainer
        env = self.env.with_tasks(self.session.tasks[:2])
        repeats = 3 if self.quick else 5
        bench = Bench(env, trainer.rewards, trainer.optimizer, self.clock, repeats)
        rows = trainer.micro_batch_size
        costs = {}
        if self.session.backbone.compiled:
            costs["compiled"] = bench.primitives(rows, compiled=True)
        with torch.compiler.set_stance("force_eager"):
            costs["eager"] = bench.primitives(rows)
            costs["one row"] = bench.primitives(1, apart=True)
        return costs

    def iteration(self, cost: Mapping[str, Primitives]) -> dict[str, Any]:
        """Mean seconds by phase after a warm-up, beside the floor of the same trees."""
        count = 1 if self.quick else 3
        rows = self.session.trainer.micro_batch_size
        steps = self.session.train(1 + count)
        next(steps)
        self.clock.take()
        self.clock.peak.clear()
        measured = [self.clock.take() for _ in steps]
        drawn = range(1, 1 + count)
        trees = [work(self.session.plan, number) for number in drawn]
        full = [work(self.session.plan, number, rows) for number in drawn]
        usual = next(iter(cost.values()))
        columns = {
            "measured": _mean(measured),
            "floor": _mean([floor(one, usual) for one in trees]),
            "computed": _mean([floor(one, usual) for one in full]),
            "node_by_node": _mean([floor(one, cost["one row"]) for one in trees]),
        }
        return {
            "iterations": count,
            "prompts": self.session.config.train.prompts_per_iteration,
            "counts": _mean([asdict(one) for one in trees]),
            "rows_computed": _mean([asdict(one) for one in full]),
            "seconds": {name: _summed(column) for name, column in columns.items()},
        }

    def compare(self, cost: Primitives, rounds: int) -> list[Row]:
        """A row for each recipe, all on the same prompts; the rounds take them in turn."""
        own = self.session.plan
        plans = {name: replace(own, algorithm=of_27_leaves(name)) for name in COMPARED}
        trainers = {name: self._trainer(plan.algorithm) for name, plan in plans.items()}
        spent: dict[str, list[dict[str, float]]] = {name: [] for name in COMPARED}
        for _ in range(0 if self.quick else rounds):
            for name, trainer in trainers.items():
                self.clock.take()
                trainer.iterate(self.session.tasks[: own.prompts_per_iteration])
                spent[name].append(self.clock.take())
        rows: list[Row] = []
        for name, plan in plans.items():
            known = floor(work(plan, 0, self.session.trainer.micro_batch_size), cost)
            how = f"measured, median of {rounds}" if spent[name] else "predicted from primitives"
            seconds = _summed(_median(spent[name]) if spent[name] else known)
            first = rows[0].seconds["all"] if rows else seconds["all"]
            rows.append(
                Row(
                    recipe=name,
                    how=how,
                    prompts=own.prompts_per_iteration,
                    counts=work(plan, 0),
                    seconds=seconds,
                    computed=_summed(known),
                    ratio=seconds["all"] / first,
                    rounds=[sum(one.values()) for one in spent[name]],
                )
            )
        return rows

    def _trainer(self, algorithm: Algorithm) -> Trainer:
        """Of another recipe, on the same model, rewards and encoded tasks."""
        trainer = self.session.trainer
        env = Observed.of(self.env, algorithm.kernel, self.clock)
        rows = trainer.micro_batch_size
        return Trainer(
            env, trainer.rewards, algorithm, trainer.optimizer, rows, peers=Laps(self.clock)
        )


def of_27_leaves(name: str) -> Algorithm:
    """A recipe with 27 leaves a prompt.

    TreeGRPO's window starts at step 1, as one from step 0 or 2 would be luck: its 176 forwards a
    prompt are nearest to the 177.4 that are expected.
    """
    recipe = recipes[name]
    if name == "treegrpo":
        return replace(recipe, branching=Fixed(branching_factor=3, depth=3, start=1))
    return replace(recipe, trees_per_prompt=LEAVES)


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: mean(row[name] for row in rows) for name in rows[0]}


def _median(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: median(row[name] for row in rows) for name in rows[0]}


def _summed(seconds: dict[str, float]) -> dict[str, float]:
    return {**seconds, "all": sum(seconds.values())}


def measure(session: Session, quick: bool, rounds: int) -> dict[str, Any]:
    """All figures of a session, as they are written."""
    card = Card.of(session, quick)
    cost = card.primitives()
    iteration = card.iteration(cost)
    memory = dict(card.clock.peak)
    compared = card.compare(next(iter(cost.values())), rounds)
    return {
        "machine": facts(session),
        "primitives_ms": {name: asdict(cost_of) for name, cost_of in cost.items()},
        "iteration": iteration,
        "recipes": [asdict(row) for row in compared],
        "peak_memory_gib": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="sd35")
    parser.add_argument("--model", help="tiny, mid, random, miniature, a folder or a hub id")
    parser.add_argument("--output", type=Path, help="the figures as JSON")
    parser.add_argument("--size", type=int, help="pixels a side")
    parser.add_argument("--rows", type=int, help="latents in every forward")
    parser.add_argument("--recipe", default="treegrpo", help="of the iteration taken apart")
    parser.add_argument("--prompts", type=int, help="an iteration; 8 of a tiny model, else 2")
    parser.add_argument("--rounds", type=int, default=3, help="iterations of each recipe compared")
    parser.add_argument("--compile", action="store_true", help="the blocks, on a CPU too")
    parser.add_argument("--quick", action="store_true", help="recipes predicted, few repetitions")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = configured(options, Path(folder))
        session = session_of(config, options.model)
        figures = measure(session, options.quick, options.rounds)
        session.close()
    report(figures)
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
