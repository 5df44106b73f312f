"""What each recipe of a comparison is worth: estimates over seeds, and paired differences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from treerl.bench.budget import Budget
from treerl.bench.files import Row
from treerl.bench.score import Score, at_marks, spent
from treerl.bench.statistic import Estimate, of
from treerl.bench.variant import Variant

Value = TypeVar("Value")
Figure = Callable[[Row], float | None]


@dataclass(frozen=True)
class Reached:
    """What a level cost the seeds that reached it."""

    level: float
    count: int  # seeds that did
    out_of: int
    cost: Estimate | None  # of those, in the budget's unit
    seconds: Estimate | None  # of training, of those


@dataclass(frozen=True)
class Gap:
    """How much more than another recipe, over the seeds that both have."""

    area: Estimate | None
    end: Estimate | None


@dataclass(frozen=True)
class Standing:
    """One recipe with the settings that it was compared with."""

    variant: Variant
    rows: tuple[Row, ...]  # of its seeds that ended, failed ones too
    seeds: int  # that were asked for
    area: Estimate | None  # of the score, over the marks
    ends: Mapping[str, Estimate]  # every held-out figure when the budget was spent
    curves: Mapping[str, tuple[Estimate, ...]]  # every figure at every mark, 0 is before training
    reached: tuple[Reached, ...]
    spent: Estimate | None  # in the budget's unit
    seconds: Estimate | None
    iterations: Estimate | None

    @property
    def done(self) -> tuple[Row, ...]:
        """The seeds that were trained to the end."""
        return tuple(row for row in self.rows if row.status == "done")

    @property
    def failed(self) -> int:
        """How many seeds ended in an error."""
        return len(self.rows) - len(self.done)


def standing(variant: Variant, rows: Sequence[Row], seeds: int, score: Score) -> Standing:
    """The standing of a variant; its figures are those of the seeds that did not fail."""
    done = [row for row in rows if row.status == "done"]
    lasts = [row.points[-1] for row in done]
    names = list(dict.fromkeys(name for point in lasts for name in point.figures()))
    curves = {name: _curve(done, name, score.budget) for name in names}
    return Standing(
        variant=variant,
        rows=tuple(rows),
        seeds=seeds,
        area=of(_known([score.area(row) for row in done])),
        ends={name: curve[-1] for name, curve in curves.items() if curve},
        curves=curves,
        reached=tuple(_reached(rows, level, score) for level in score.levels),
        spent=of([spent(point, score.budget) for point in lasts]),
        seconds=of([float(point.seconds or 0) for point in lasts]),
        iterations=of([point.iteration for point in lasts]),
    )


def best(standings: Sequence[Standing]) -> Standing | None:
    """The one of the largest area."""
    known = [standing for standing in standings if standing.area is not None]
    return max(
        known, key=lambda standing: standing.area.value if standing.area else 0.0, default=None
    )


def gap(standing: Standing, other: Standing, score: Score) -> Gap:
    """Paired by seed: the same prompts, the same evaluation noise."""
    return Gap(_difference(standing, other, score.area), _difference(standing, other, score.end))


def _difference(standing: Standing, other: Standing, figure_of: Figure) -> Estimate | None:
    theirs = {row.seed: figure_of(row) for row in other.done}
    differences = []
    for row in standing.done:
        mine = figure_of(row)
        yours = theirs.get(row.seed)
        if mine is not None and yours is not None:
            differences.append(mine - yours)
    return of(differences)


def _curve(done: Sequence[Row], name: str, budget: Budget) -> tuple[Estimate, ...]:
    """The estimates of a figure at each mark, over the seeds that have it at all of them."""
    curves = _known([at_marks(row, name, budget) for row in done])
    estimates = [of(values) for values in zip(*curves, strict=True)]
    return tuple(_known(estimates))


def _reached(rows: Sequence[Row], level: float, score: Score) -> Reached:
    reached = _known([score.reached(row, level) for row in rows])
    costs = [cost for cost, _ in reached]
    seconds = [clock for _, clock in reached]
    return Reached(level, len(reached), len(rows), of(costs), of(seconds))


def _known(values: Sequence[Value | None]) -> list[Value]:
    return [value for value in values if value is not None]
