"""What the engine itself costs: seconds against the size of the forest, and its share of training.

    python benchmarks/scaling.py [--rows 24] [--repeats 5] [--output FILE.json] [--quick]

Forests of 1,000 to 100,000 nodes grow under a policy that computes nothing, so that what is
measured is the engine; a straight line is fitted through the seconds of each phase over the number
of nodes that the trees' shape says. Then iterations of the tiny model are taken apart: forwards,
backward passes, decoding, rewards and the optimizer by themselves, and what is left is the
engine's. One thread; the smallest of the repeats, the median of the iterations.
"""

import argparse
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

import treerl
from treerl.engine import noise
from treerl.engine.advantage import advantages
from treerl.engine.baseline import Prompt
from treerl.engine.env import Env
from treerl.engine.grow import grow
from treerl.engine.minibatch import minibatches
from treerl.engine.normaliser import Standardised
from treerl.engine.policy import Gaussian
from treerl.engine.roots import make_roots
from treerl.engine.tree import State, Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weighting import Uniform
from treerl.reward.rewards import Rewards

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
QUICK = (300, 900, 2_700)
PHASES = ("grow", "credit", "minibatches")
TREES = 4  # of a prompt
# three splits after a trunk of one step, and tails of six: 203 nodes, 176 forwards
SPEC = TreeSpec((1, 3, 3, 3) + (1,) * 6, (False,) + (True,) * 3 + (False,) * 6)


class Trivial(Env):
    """A walk on the plane whose policy computes nothing."""

    steps = len(SPEC.children)
    shape = (2,)

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        return Gaussian(state.x, torch.full((len(state.x),), 0.5 if stochastic else 0.0))


def phases(trees: int, rows: int) -> tuple[Tree, dict[str, float]]:
    """A forest of so many trees, and the seconds of each phase of its iteration."""
    marks = [time.perf_counter()]
    tasks = [noise.key(0, row) for row in range(-(-trees // TREES))]
    tree = grow(Trivial(), make_roots(tasks, TREES).part(range(trees)), SPEC, rows)
    marks.append(time.perf_counter())
    scores = torch.full((len(tree), 1), torch.nan, dtype=torch.float64)
    scores[tree.leaves] = tree.at(tree.leaves).x[:, :1].double()
    values = Standardised()(tree, scores, torch.ones(1, dtype=torch.float64))
    advantages(tree, values, Uniform(), Prompt())
    marks.append(time.perf_counter())
    minibatches(tree, tree.stochastic, 2, rows, np.random.default_rng(0))
    marks.append(time.perf_counter())
    return tree, dict(zip(PHASES, np.diff(marks).tolist(), strict=True))


def forests(sizes: Sequence[int], rows: int, repeats: int) -> list[dict[str, Any]]:
    """One row a size: its nodes by the closed form, and the smallest seconds of each phase."""
    phases(1, rows)  # what is built once is built now
    table = []
    for size in sizes:
        trees = max(1, size // sum(SPEC.widths))
        nodes = trees * sum(SPEC.widths)
        measured = []
        for _ in range(repeats):
            tree, seconds = phases(trees, rows)
            assert len(tree) == nodes, (len(tree), nodes)
            measured.append(seconds)
        best = {name: min(row[name] for row in measured) for name in PHASES}
        table.append({"nodes": nodes, **best})
    return table


def line(nodes: Sequence[int], seconds: Sequence[float]) -> dict[str, float]:
    """Least squares of seconds = fixed + each · nodes, and the share R² that it explains."""
    x = np.array(nodes, dtype=float)
    y = np.array(seconds)
    each, fixed = np.polyfit(x, y, 1)
    left = y - fixed - each * x
    explained = 1 - left.var() / y.var() if y.var() > 0 else 1.0
    return {"us_per_node": each * 1e6, "fixed_ms": fixed * 1e3, "r2": float(explained)}


class Clock:
    """Adds up the seconds inside some methods; what they call of each other counts once."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.inside = False

    def watch(self, owner: Any, method: str, name: str) -> Callable[[], None]:
        """Watch a method of a class; gives what ends it."""
        plain = getattr(owner, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            if self.inside:
                return plain(*arguments, **named)
            self.inside = True
            start = time.perf_counter()
            try:
                return plain(*arguments, **named)
            finally:
                self.spent[name] += time.perf_counter() - start
                self.inside = False

        setattr(owner, method, timed)
        return lambda: setattr(owner, method, plain)


def share(iterations: int, settings: dict[str, object]) -> dict[str, float]:
    """Shares of an iteration of the tiny model, each the median; `engine` is what is left."""
    chosen = {"recipe": "treegrpo", "train.iterations": iterations + 1, **settings}
    session = treerl.assemble(settings=chosen)
    clock = Clock()
    watched = [
        (type(session.backbone), "predict", "forward"),
        (Tensor, "backward", "backward"),
        (type(session.backbone), "decode", "decode"),
        (Rewards, "__call__", "reward"),
        (type(session.trainer.optimizer), "step", "optimizer"),
    ]
    ends = [clock.watch(*place) for place in watched]
    rows = []
    try:
        start = time.perf_counter()
        for _ in session.train():
            whole = time.perf_counter() - start
            parts = {name: clock.spent[name] / whole for _, _, name in watched}
            rows.append({"seconds": whole, **parts, "engine": 1 - sum(parts.values())})
            clock.spent.clear()
            start = time.perf_counter()
    finally:
        for end in ends:
            end()
        session.close()
    return {name: median(row[name] for row in rows[1:]) for name in rows[0]}


def report(figures: dict[str, Any]) -> None:
    print(f"{figures['machine']}; torch {figures['torch']}; {figures['rows']} rows a forward")
    print("nodes | " + " | ".join(f"{name}, ms" for name in PHASES))
    for row in figures["forests"]:
        print(f"{row['nodes']:,} | " + " | ".join(f"{1e3 * row[name]:.1f}" for name in PHASES))
    for name, fit in figures["lines"].items():
        each = f"{fit['us_per_node']:.2f} us a node"
        print(f"{name}: {each}, {fit['fixed_ms']:.1f} ms fixed, R2 {fit['r2']:.4f}")
    parts = dict(figures["tiny"])
    print(f"an iteration of the tiny model, {parts.pop('seconds'):.2f} s:")
    print(", ".join(f"{name} {100 * part:.1f} %" for name, part in parts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=24, help="states in every forward")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=6, help="of the tiny model")
    parser.add_argument("--output", type=Path, help="the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = QUICK if options.quick else SIZES
    table = forests(sizes, options.rows, 1 if options.quick else options.repeats)
    nodes = [row["nodes"] for row in table]
    small: dict[str, object] = {"train.prompts_per_iteration": 1} if options.quick else {}
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "torch": torch.__version__,
        "rows": options.rows,
        "forests": table,
        "lines": {name: line(nodes, [row[name] for row in table]) for name in PHASES},
        "tiny": share(1 if options.quick else options.iterations, small),
    }
    report(figures)
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
