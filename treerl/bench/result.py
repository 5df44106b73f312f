"""A comparison as far as it got: what tables, curves and the page are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treerl.bench import score as scores
from treerl.bench.budget import Budget, parse
from treerl.bench.cell import Cell
from treerl.bench.files import Declaration, Row
from treerl.bench.score import Score
from treerl.bench.standing import Standing, standing
from treerl.bench.variant import Variant


@dataclass(frozen=True)
class Tried:
    """One setting of the sweep for one recipe."""

    variant: Variant
    settings: tuple[str, ...]
    areas: tuple[float | None, ...]  # by tuning seed; None of one that failed
    ends: tuple[float | None, ...]
    chosen: bool


@dataclass(frozen=True)
class Result:
    """All that is known of a comparison."""

    declaration: Declaration
    budget: Budget
    score: Score
    standings: tuple[Standing, ...]  # in the order in which they were named
    tried: tuple[Tried, ...]  # of the sweep
    rows: tuple[Row, ...]  # of all cells that ended, in the order of the declaration
    planned: int  # cells
    left_aside: int  # rows of the folder that are of other settings

    @property
    def names(self) -> dict[Variant, str]:
        """What each variant is called where there is little room: its recipe, if that is enough."""
        recipes = [standing.variant.recipe for standing in self.standings]
        names = {}
        for each in self.standings:
            variant = each.variant
            alone = recipes.count(variant.recipe) == 1
            names[variant] = variant.recipe if alone else variant.label
        return names

    @property
    def complete(self) -> bool:
        """Whether every cell has ended."""
        return len(self.rows) == self.planned


def result_of(
    declaration: Declaration,
    cells: Sequence[Cell],
    planned: int,
    rows: Mapping[str, Row],
    chosen: Mapping[Variant, tuple[str, ...]],
) -> Result | None:
    """What the rows say of these cells; None as long as there is no figure at all."""
    levels = None if declaration.levels is None else tuple(declaration.levels)
    here = [_labelled(rows[cell.key], cell) for cell in cells if cell.key in rows]
    budget = parse(declaration.budget)
    score = scores.choose(here, budget, declaration.score, levels)
    if score is None:
        return None
    standings = []
    variants = dict.fromkeys(cell.variant for cell in cells)
    for variant in variants:
        tried = chosen.get(variant, ())
        mine = [
            rows[cell.key]
            for cell in cells
            if cell.phase == "compare" and cell.variant == variant and cell.key in rows
        ]
        full = variant.with_settings(tried)
        standings.append(standing(full, mine, len(declaration.seeds), score))
    return Result(
        declaration=declaration,
        budget=budget,
        score=score,
        standings=tuple(standings),
        tried=_tried(cells, rows, score, chosen),
        rows=tuple(here),
        planned=planned,
        left_aside=len(set(rows) - {cell.key for cell in cells}),
    )


def _labelled(row: Row, cell: Cell) -> Row:
    """The row as that of this cell: two variants of the same settings share one."""
    names = {"recipe": cell.variant.recipe, "settings": list(cell.variant.settings)}
    return row.model_copy(update={**names, "tried": list(cell.tried), "phase": cell.phase})


def _tried(
    cells: Sequence[Cell],
    rows: Mapping[str, Row],
    score: Score,
    chosen: Mapping[Variant, tuple[str, ...]],
) -> tuple[Tried, ...]:
    groups: dict[tuple[Variant, tuple[str, ...]], list[Row]] = {}
    for cell in cells:
        if cell.phase == "sweep" and cell.key in rows:
            groups.setdefault((cell.variant, cell.tried), []).append(rows[cell.key])
    return tuple(
        Tried(
            variant=variant,
            settings=settings,
            areas=tuple(score.area(row) for row in group),
            ends=tuple(score.end(row) for row in group),
            chosen=chosen.get(variant) == settings,
        )
        for (variant, settings), group in groups.items()
    )
