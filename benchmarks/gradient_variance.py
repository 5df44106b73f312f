"""Bias and variance of the tree gradient: closed form and simulation, and what a gradient costs.

    python benchmarks/gradient_variance.py --output DIR [--trees 10000]

Every weighting x baseline x coupling on the linear-Gaussian flow, step by step, in units of the
exact gradient. Writes gradient.csv and gradient-variance.svg, and prints tables.
"""

import argparse
import csv
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from gradient_plot import Line, draw

from treerl import registry
from treerl.engine.baseline import Prompt
from treerl.engine.branching import window
from treerl.engine.coupling import Independent, Mirrored, Orthogonal
from treerl.engine.tree_spec import Tail, TreeSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import density_moments
from gradient_moments import law, moments
from gradient_samples import Readings, World, readings
from oracle import schedule

STEPS = 10
SHAPES = {
    "2x2x2x2": window(STEPS, 1, 4, 2).walked(Tail(5)),
    "3x3x3": window(STEPS, 1, 3, 3).walked(Tail(6)),
    "2x2": window(STEPS, 1, 2, 2).walked(Tail(7)),
    "star of 16": TreeSpec((1, 16, 1, 1, 1, 1), (False, *(True,) * 4, False), (1,) * 5 + (5,)),
}
CHAIN = window(STEPS, 1, 4, 1).walked(Tail(5))
CHAINS = {"16 chains": (16, False), "16 chains, one start": (16, True), "4 chains": (4, False)}
# what the plot and the summary compare: tree, baseline, coupling
COMPARED = (
    ("16 chains", "prompt", "independent"),
    ("star of 16", "prompt", "independent"),
    ("2x2x2x2", "prompt", "independent"),
    ("2x2x2x2", "siblings", "independent"),
    ("2x2x2x2", "prompt", "mirrored"),
)


def shelf(kind: str) -> dict[str, Any]:
    """The plug-ins of a kind as they are without parameters."""
    return {name: registry.load(kind, name)() for name in registry.announced(kind)}


WEIGHTINGS = shelf("weightings")
BASELINES = shelf("baselines")
COUPLINGS = shelf("couplings")


@dataclass(frozen=True)
class Exact:
    """What is known without a draw, in units of the exact gradient; NaN where nothing is."""

    factor: float = math.nan  # the mean
    along: float = math.nan  # variance in the reward's direction
    across: float = math.nan  # variance in a direction across it
    before: float = math.nan  # what of it the noise before this step makes,
    own: float = math.nan  # that of this step,
    after: float = math.nan  # and that after it


@dataclass(frozen=True)
class Cell:
    """One step's gradient: where it comes from, what is known, what was simulated."""

    tree: str
    weighting: str
    baseline: str
    coupling: str
    step: int
    cost: int  # forwards of the rollout and three times those of the update
    size: float  # the exact gradient itself
    exact: Exact
    simulated: Readings

    @property
    def z(self) -> tuple[float, float, float]:
        """How far off the simulation is; NaN where nothing is known."""
        simulated = self.simulated
        return (
            simulated.factor.z(self.exact.factor),
            simulated.along.z(self.exact.along),
            simulated.across.z(self.exact.across),
        )

    @property
    def row(self) -> dict[str, Any]:
        """A line of the file."""
        names = [field.name for field in fields(self)][:7]
        row = {name: getattr(self, name) for name in names}
        row |= {"bias": self.exact.factor - 1, **asdict(self.exact)}
        for name, z in zip(("factor", "along", "across"), self.z, strict=True):
            reading = getattr(self.simulated, name)
            row |= {f"simulated_{name}": reading.value, f"error_{name}": reading.error}
            row[f"z_{name}"] = z
        return {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}


def cells(name: str, world: World, tasks: int) -> Iterator[Cell]:
    """All weightings, couplings and baselines of one tree; unsplit ones know but a few."""
    splits = name in SHAPES and name != "star of 16"
    size = world.steps.gradient()
    for coupling in COUPLINGS if splits else ("independent",):
        tree = world.grow(tasks, COUPLINGS[coupling])
        for weighting in WEIGHTINGS if splits else ("uniform",):
            for baseline in BASELINES if splits else ("prompt", "leave-out"):
                simulated = readings(world, tree, WEIGHTINGS[weighting], BASELINES[baseline])
                for step, reading in simulated.items():
                    known = exact(world, weighting, baseline, coupling, step)
                    place = (name, weighting, baseline, coupling, step)
                    yield Cell(*place, world.cost, size[step], known, reading)


def exact(world: World, weighting: str, baseline: str, coupling: str, step: int) -> Exact:
    """The closed form of a step, as far as there is one."""
    tree = world.grow(1, Independent())
    weigh = WEIGHTINGS[weighting]
    credit = BASELINES[baseline]
    noise = COUPLINGS[coupling]
    k = max(world.spec.children)
    if density_moments.equal(weigh, noise, k):
        known = moments(tree, world.steps, credit, law(tree, noise, world.shared_noise), step)
        return Exact(known.factor, known.along, known.across, *known.origins)
    free = isinstance(noise, Independent | Orthogonal) and weighting != "softmax-value"
    if free and len(tree.edges) <= 6:  # the integral has a dimension for every edge
        right = isinstance(noise, Orthogonal)
        return Exact(*density_moments.moments(tree, world.steps, weigh, credit, step, right, 6))
    families = world.spec.widths[step]
    factor = density_moments.factor(weigh, credit, noise, k, families, world.dims)
    return Exact() if factor is None else Exact(factor)


def table(rows: Sequence[Cell]) -> Iterator[str]:
    """One line for each weighting, baseline and coupling of a tree; ~ is simulated alone."""
    steps = sorted({row.step for row in rows})
    yield f"| {rows[0].tree}, cost {rows[0].cost} | {' | '.join(f'step {s}' for s in steps)} |"
    yield "|---" * (len(steps) + 1) + "| mean; variance along; across"
    lines: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        numbers = []
        for name in ("factor", "along", "across"):
            known = getattr(row.exact, name)
            simulated = getattr(row.simulated, name).value
            numbers.append(f"~{simulated:.3f}" if math.isnan(known) else f"{known:.3f}")
        key = (row.weighting, row.baseline, row.coupling)
        lines.setdefault(key, []).append("; ".join(numbers))
    for key, words in lines.items():
        yield f"| {', '.join(key)} | {' | '.join(words)} |"


def line(rows: Sequence[Cell], tree: str, baseline: str, coupling: str) -> Line:
    """Forwards for a gradient as large as its noise, step by step, and of all steps together."""
    key = (tree, "uniform", baseline, coupling)
    cells_of_key = [r for r in rows if (r.tree, r.weighting, r.baseline, r.coupling) == key]
    curves: dict[str, list[float]] = {"along the gradient": [], "across it": []}
    dots: dict[str, list[float]] = {"along the gradient": [], "across it": []}
    total = sum(r.size**2 for r in cells_of_key)
    for title, name in zip(curves, ("along", "across"), strict=True):
        for r in cells_of_key:
            curves[title].append(r.cost * getattr(r.exact, name) / r.exact.factor**2)
            simulated = getattr(r.simulated, name).value / r.simulated.factor.value**2
            dots[title].append(r.cost * simulated)
        whole = sum(r.size**2 * v for r, v in zip(cells_of_key, curves[title], strict=True)) / total
        steps = " ".join(f"{value:.0f}" for value in curves[title])
        mean = sum(curves[title]) / len(cells_of_key)
        words = f"{steps}; mean {mean:.0f}; by the exact gradient's square {whole:.0f}"
        print(f"{tree}, {baseline}, {coupling}; {title}: {words}")
    return Line(f"{tree}: {coupling}, {baseline}" if "x" in tree else tree, curves, dots)


def windows() -> Iterator[str]:
    """The closed form of the binary tree by the step at which its window begins."""
    for start in range(6):
        spec = window(STEPS, start, 4, 2).walked(Tail(STEPS - start - 4))
        world = World(schedule(STEPS, 3), spec)
        tree = world.grow(1, Independent())
        size = world.steps.gradient()
        for noise in (Independent(), Mirrored()):
            words = []
            for step in world.sampled:
                known = moments(tree, world.steps, Prompt(), law(tree, noise), step)
                cost = world.cost / known.factor**2
                words.append(f"{cost * known.along:.0f}; {cost * known.across:.0f}")
            sizes = " ".join(f"{abs(size[step]):.4f}" for step in world.sampled)
            where = f"window at {start}, {type(noise).__name__.lower()}"
            yield f"{where}: {' | '.join(words)}; exact gradient {sizes}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trees", type=int, default=10_000, help="tasks simulated for each cell")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    noise = schedule(STEPS, 3)
    worlds = {name: World(noise, spec) for name, spec in SHAPES.items()}
    worlds |= {
        name: World(noise, CHAIN, n, shared_noise=same) for name, (n, same) in CHAINS.items()
    }
    rows: list[Cell] = []
    for name, world in worlds.items():
        results = list(cells(name, world, options.trees))
        print("\n".join(table(results)), flush=True)
        rows += results
    with (options.output / "gradient.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0].row))
        writer.writeheader()
        writer.writerows(row.row for row in rows)
    compared = [line(rows, *chosen) for chosen in COMPARED]
    svg = draw("Forwards for a gradient as large as its noise", compared, range(1, 5))
    (options.output / "gradient-variance.svg").write_text(svg, encoding="utf-8")
    print("\n".join(windows()))
    deviations = [abs(z) for row in rows for z in row.z if not math.isnan(z)]
    far = sum(z > 3 for z in deviations)
    print(f"{len(deviations)} exact numbers, max |z| {max(deviations):.2f}, {far} above 3")


if __name__ == "__main__":
    main()
