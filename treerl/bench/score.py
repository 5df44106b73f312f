"""The held-out figure by which recipes are compared, and what a cell's curve says in it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from treerl.bench.budget import Budget
from treerl.bench.files import Point, Row
from treerl.bench.statistic import cost_to_reach
from treerl.errors import InputError, shown
from treerl.registry import nearest
from treerl.run.plan import Counts

RIGHT = "measures.right"
_LEVELS = (0.8, 0.9, 0.95)  # of `right`, a share


@dataclass(frozen=True)
class Score:
    """A figure by its name in `Point.figures`, the budget that its curves are over, and levels."""

    name: str
    budget: Budget
    levels: tuple[float, ...] = ()  # whose cost is asked for

    @property
    def title(self) -> str:
        """`right` for `measures.right`."""
        return self.name.rpartition(".")[2]

    def at(self, point: Point) -> float | None:
        """The figure there; None where it was not finite."""
        return point.figures().get(self.name)

    def end(self, row: Row) -> float | None:
        """The figure when the budget was spent; None of a cell that failed."""
        values = at_marks(row, self.name, self.budget)
        return values[-1] if values else None

    def area(self, row: Row) -> float | None:
        """The mean over the marks, but for the one before training; None of a cell that failed."""
        values = at_marks(row, self.name, self.budget)
        return fmean(values[1:]) if values else None

    def reached(self, row: Row, level: float) -> tuple[float, float] | None:
        """What it cost to reach a level, in the budget's unit and in seconds; None beyond it.

        A cell that failed counts with what it had reached until then.
        """
        points = distinct(row.points)
        scores = [self.at(point) for point in points]
        known = [value for value in scores if value is not None]
        if not known or len(known) < len(scores):
            return None
        cost = cost_to_reach(level, [spent(point, self.budget) for point in points], known)
        seconds = cost_to_reach(level, [float(point.seconds or 0) for point in points], known)
        if cost is None or seconds is None or cost > self.budget.amount:
            return None
        return cost, seconds


def at_marks(row: Row, name: str, budget: Budget) -> list[float] | None:
    """A figure at even shares of the budget, 0 first; None of a cell that failed.

    Iterations are whole, so a cell is judged when it has spent more than a mark, and how much more
    depends on the recipe: the figure at the mark itself is linear between evaluations.
    """
    if row.status == "failed" or len(row.points) < 2:
        return None
    points = distinct(row.points)
    values = [point.figures().get(name) for point in points]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    marks = np.linspace(0.0, budget.amount, len(row.points))
    interpolated: list[float] = np.interp(
        marks, [spent(point, budget) for point in points], known
    ).tolist()
    return interpolated


def distinct(points: Sequence[Point]) -> list[Point]:
    """The points without those that share the evaluation of the one before."""
    kept: list[Point] = []
    for point in points:
        if not kept or point.iteration > kept[-1].iteration:
            kept.append(point)
    return kept


def spent(point: Point, budget: Budget) -> float:
    """What had been spent at a point, in the budget's unit."""
    work = Counts(**{name: float(value or 0) for name, value in point.spent.items()})
    return budget.spent(work, float(point.seconds or 0))


def choose(
    rows: Iterable[Row], budget: Budget, wanted: str | None, levels: tuple[float, ...] | None
) -> Score | None:
    """The figure that is asked for, or else `right`, or else the reward; None without any row."""
    points = [point for row in rows for point in row.points]
    if not points:
        return None
    names = list(points[0].figures())
    if wanted is None:
        name = RIGHT if RIGHT in names else "reward"
    else:
        fitting = [known for known in names if wanted in (known, known.rpartition(".")[2])]
        if not fitting:
            raise InputError(
                f"--score: no held-out figure {shown(wanted)}; {nearest(wanted, names)}"
            )
        name = fitting[0]
    if levels is None:
        levels = _LEVELS if name == RIGHT else ()
    return Score(name, budget, levels)
