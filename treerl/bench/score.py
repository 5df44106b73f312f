"""The held-out figure by which recipes are compared, and what a cell's curve says in it."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

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
    """A figure by its name in `Point.figures`, and the levels whose cost is asked for."""

    name: str
    levels: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """`right` for `measures.right`."""
        return self.name.rpartition(".")[2]

    def at(self, point: Point) -> float | None:
        """The figure there; None where it was not finite."""
        return point.figures().get(self.name)

    def end(self, row: Row) -> float | None:
        """The figure when the budget was spent; None of a cell that failed."""
        return figure(row, self.name)

    def area(self, row: Row) -> float | None:
        """The mean over the marks, but for the one before training; None of a cell that failed."""
        if row.status == "failed":
            return None
        values = [self.at(point) for point in row.points[1:]]
        known = [value for value in values if value is not None]
        return fmean(known) if known and len(known) == len(values) else None

    def reached(self, row: Row, level: float, budget: Budget) -> float | None:
        """What it cost to reach a level, in the budget's unit; None where it was not reached.

        A cell that failed counts with what it had reached until then.
        """
        costs = [spent(point, budget) for point in row.points]
        scores = [self.at(point) for point in row.points]
        known = [value for value in scores if value is not None]
        if not known or len(known) < len(scores):
            return None
        return cost_to_reach(level, costs, known)


def figure(row: Row, name: str) -> float | None:
    """A held-out figure at the end of a cell; None of one that failed."""
    if row.status == "failed" or not row.points:
        return None
    return row.points[-1].figures().get(name)


def spent(point: Point, budget: Budget) -> float:
    """What had been spent at a point, in the budget's unit."""
    work = Counts(**{name: float(value or 0) for name, value in point.spent.items()})
    return budget.spent(work, float(point.seconds or 0))


def choose(
    rows: Iterable[Row], wanted: str | None, levels: tuple[float, ...] | None
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
    return Score(name, levels)
