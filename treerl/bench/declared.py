"""What a comparison is made of: which cells are tuned, and which are compared afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from treerl.bench.budget import Budget
from treerl.bench.cell import Cell, Phase, configured
from treerl.bench.files import Row
from treerl.bench.score import Score
from treerl.bench.sweep import Sweep
from treerl.bench.variant import Variant
from treerl.config.flags import Given
from treerl.errors import InputError

TUNING = 100  # the first seed that only the sweep uses
TuneBy = Literal["area", "end"]  # the mean over the marks, or the figure when all is spent


@dataclass(frozen=True)
class Declared:
    """A comparison as the command line describes it."""

    given: Given
    variants: tuple[Variant, ...]
    budget: Budget
    marks: int
    seeds: range
    sweep: Sweep | None
    tuning_seeds: range
    tune_by: TuneBy = "area"

    def __post_init__(self) -> None:
        if self.sweep is None:
            return
        self.sweep.refuse_unequal(self.variants)
        both = set(self.seeds) & set(self.tuning_seeds)
        if both:
            raise InputError(
                f"--seeds: expected seeds that the sweep does not use ({TUNING} and on), got "
                f"{min(both)} in both"
            )

    def tuning(self) -> list[Cell]:
        """The cells of the sweep, seed by seed."""
        if self.sweep is None:
            return []
        cells = []
        for seed in self.tuning_seeds:
            for variant in self.variants:
                for tried in self.sweep.settings(variant):
                    cells.append(self._cell("sweep", variant, tried, seed))
        return cells

    def compared(self, chosen: Mapping[Variant, Sequence[str]]) -> list[Cell]:
        """The cells of the comparison, seed by seed, of the variants that have settings."""
        cells = []
        for seed in self.seeds:
            for variant, tried in chosen.items():
                cells.append(self._cell("compare", variant, tried, seed))
        return cells

    def choose(
        self, cells: Sequence[Cell], rows: Mapping[str, Row], score: Score | None
    ) -> dict[Variant, tuple[str, ...]]:
        """What each variant is compared with: the settings of the best mean over tuning seeds.

        A variant whose settings all failed on some seed of the sweep has none.
        """
        if self.sweep is None or score is None:
            return {variant: () for variant in self.variants} if self.sweep is None else {}
        figure = score.area if self.tune_by == "area" else score.end
        chosen = {}
        for variant in self.variants:
            means: dict[tuple[str, ...], float] = {}
            for tried in self.sweep.settings(variant):
                mine = [rows[cell.key] for cell in cells if _is(cell, variant, tried)]
                values = [figure(row) for row in mine]
                known = [value for value in values if value is not None]
                if len(known) == len(mine):
                    means[tried] = fmean(known)
            if means:
                chosen[variant] = max(means, key=lambda tried: means[tried])
        return chosen

    def _cell(self, phase: Phase, variant: Variant, tried: Sequence[str], seed: int) -> Cell:
        config = configured(self.given, variant, tried, seed, self.budget)
        return Cell(phase, variant, tuple(tried), seed, config, self.budget, self.marks)


def _is(cell: Cell, variant: Variant, tried: Sequence[str]) -> bool:
    return cell.variant == variant and cell.tried == tuple(tried)
