"""One comparison while it goes on: trains the cells that are left, and writes what is known."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from treerl.bench import page, score as scores, table
from treerl.bench.cell import Cell
from treerl.bench.crew import Reply, Task, work
from treerl.bench.declared import Declared
from treerl.bench.files import Declaration, Row
from treerl.bench.folder import BenchFolder, is_final, table as csv_of
from treerl.bench.progress import Progress
from treerl.bench.result import Result, result_of
from treerl.bench.score import Score
from treerl.bench.variant import Variant
from treerl.errors import InputError, PeerError, RewardError, StorageError, TreerlError, shown
from treerl.run.files import checked

# a cell that ends so ends the comparison: every other one would meet the same
_FATAL: dict[int, type[TreerlError]] = {2: InputError, 4: StorageError}
_KINDS: dict[int, type[TreerlError]] = {5: PeerError, 6: RewardError}


@dataclass
class Comparison:
    """Cells, and the rows of those that ended."""

    declared: Declared
    folder: BenchFolder
    declaration: Declaration
    environments: Sequence[Mapping[str, str]]
    progress: Progress
    check_interrupt: Callable[[], None]
    rows: dict[str, Row]  # by the key of their cell
    cells: list[Cell] = field(default_factory=list)  # that are known; more once the sweep is over
    chosen: dict[Variant, tuple[str, ...]] = field(default_factory=dict)

    def run(self, tuned: Sequence[Cell]) -> None:
        """Train all that is left: first the sweep, then the comparison by what it chose."""
        self.cells = list(tuned)
        left = self.ended < len(tuned)
        if left:
            self.progress.began(self.ended, len(self.environments))
        self._train(tuned)
        self.raise_what_failed()  # a choice among some of the settings would not be the same again
        self.chosen = self.declared.choose(tuned, self.rows, self._score())
        compared = self.declared.compared(self.chosen)
        self.cells += compared
        if not left:
            self.progress.began(self.ended, len(self.environments))
        for variant, settings in self.chosen.items():
            if settings:
                self.progress.chose(variant, settings)
        self._train(compared)

    @property
    def ended(self) -> int:
        """How many cells need no training any more."""
        return sum(cell.key in self.rows and is_final(self.rows[cell.key]) for cell in self.cells)

    def write(self) -> None:
        """Table, CSV and page of what is known so far."""
        result = self.result()
        if result is None:
            return
        csv = self.folder.publish("cells.csv", csv_of(result.rows))
        report = self.folder.publish("report.html", page.render(result))
        self.progress.told(table.markdown(result), csv, report)

    def result(self) -> Result | None:
        """What is known; None before any figure is."""
        return result_of(self.declaration, self.cells, self.progress.total, self.rows, self.chosen)

    def raise_what_failed(self) -> None:
        """The error of the first cell that another start might train to its end."""
        for cell in self.cells:
            row = self.rows.get(cell.key)
            if row is not None and not is_final(row):
                kind = _KINDS.get(row.code, TreerlError)
                raise kind(f"{shown(cell.name)}: {row.error}; the same command tries it again")

    def _score(self) -> Score | None:
        """The figure that is compared; `InputError` where there is none of the wanted name."""
        levels = self.declaration.levels
        wanted = None if levels is None else tuple(levels)
        budget = self.declared.budget
        return scores.choose(self.rows.values(), budget, self.declaration.score, wanted)

    def _train(self, cells: Sequence[Cell]) -> None:
        left: dict[str, Cell] = {}  # two variants may be the same settings, and are trained once
        for cell in cells:
            if cell.key not in self.rows or not is_final(self.rows[cell.key]):
                left.setdefault(cell.key, cell)
        waiting = list(left.values())
        for cell, reply in self._replies(waiting):
            row = _row(cell, reply, self.declaration.versions)
            kind = _FATAL.get(row.code)
            if kind is not None:
                raise kind(f"{shown(cell.name)}: {row.error}")
            self.folder.append(row)
            self.rows[cell.key] = row
            score = self._score()
            self.progress.cell_ended(cell, row, score, self.ended)

    def _replies(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Reply]]:
        """Every cell with what came of it, as they end."""
        tasks: list[Task] = []
        for cell in cells:
            tasks.append(
                {
                    "config": str(self.folder.write_config(cell)),
                    "budget": cell.budget.text,
                    "marks": cell.marks,
                    "allow_plugins": self.declared.given.allow_plugins,
                }
            )
        if tasks:
            for place, reply in work(tasks, self.environments, self.check_interrupt):
                yield cells[place], reply


def _row(cell: Cell, reply: Reply, versions: Mapping[str, str]) -> Row:
    """The row of a cell, of what its worker said."""
    content = {
        "key": cell.key,
        "phase": cell.phase,
        "recipe": cell.variant.recipe,
        "settings": list(cell.variant.settings),
        "tried": list(cell.tried),
        "seed": cell.seed,
        "status": "failed" if "error" in reply else "done",
        "versions": dict(versions),
        **reply,
    }
    return checked(Row, content, cell.name)
