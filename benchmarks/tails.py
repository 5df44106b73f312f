"""What a shortened tail does to scores and advantages: correlation with the whole tail's.

    python benchmarks/tails.py                         # the three tiny models
    python benchmarks/tails.py --backbones sd35 --prompts 40 --set env.guidance=2

The same trees are grown for each tail, with the same noise: only the deterministic steps after the
window differ. Scores are compared less their prompt's mean, advantages as the recipe makes them.
Prints a table, and a line of JSON for each row.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from treerl.config.resolve import resolve
from treerl.engine.step import Step
from treerl.run.assemble import build
from treerl.run.quiet import quiet

TAILS = ((1, 1), (2, 1), (2, 2), (5, 1))  # stride and order; the first is whole
COLUMNS = ("model", "stride", "order", "forwards a tree", "r of scores", "r of advantages", "mean")


def grown(name: str, stride: int, order: int, prompts: int, sets: Sequence[str]) -> Step:
    """One iteration of `treerl` on a tiny model, which learns nothing."""
    settings = [
        "recipe=treerl",
        f"tree.tail_stride={stride}",
        f"tree.tail_order={order}",
        f"train.prompts_per_iteration={prompts}",
        "train.learning_rate=0",
        "train.optimizer_steps=1",  # as few nodes as there are
    ]
    config = resolve(None, {"backbone.name": name, "backbone.model": "tiny"}, [*settings, *sets])
    session = build(config)
    try:
        return session.trainer.iterate(session.tasks[:prompts])
    finally:
        session.close()


def contrasts(step: Step) -> tuple[Tensor, Tensor]:
    """The scores of leaves less their prompt's mean, and the advantages of edges that train."""
    tree = step.tree
    leaves = tree.leaves
    scores = step.scores[leaves].sum(1)
    prompts = tree.task[leaves]
    means = torch.zeros(len(step.tasks), dtype=scores.dtype).index_add(0, prompts, scores)
    sizes = torch.bincount(prompts, minlength=len(step.tasks))
    return scores - (means / sizes)[prompts], step.advantages.advantage[tree.edges]


def correlation(some: Tensor, others: Tensor) -> float:
    """Pearson's, of two rows of numbers."""
    return float(torch.corrcoef(torch.stack([some, others]))[0, 1])


def rows(name: str, prompts: int, sets: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each tail of a model."""
    table = []
    whole = None
    for stride, order in TAILS:
        step = grown(name, stride, order, prompts, sets)
        scores, advantages = contrasts(step)
        whole = whole or (scores, advantages)
        row = {
            "model": name,
            "stride": stride,
            "order": order,
            "forwards a tree": step.metrics["sampling_forwards"] / prompts,
            "r of scores": correlation(scores, whole[0]),
            "r of advantages": correlation(advantages, whole[1]),
            "mean": float(step.scores[step.tree.leaves].sum(1).mean()),
        }
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["sd35", "flux", "wan"])
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="path=value")
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    lines = []
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for name in arguments.backbones:
        for row in rows(name, arguments.prompts, arguments.sets):
            cells = [f"{row[key]:.3f}" if isinstance(row[key], float) else row[key] for key in row]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
            lines.append(json.dumps(row))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
