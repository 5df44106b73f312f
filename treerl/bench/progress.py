"""What a comparison prints while it goes on: one line for each cell that ends."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from treerl.bench.cell import Cell
from treerl.bench.files import Row
from treerl.bench.score import Score
from treerl.bench.variant import Variant
from treerl.errors import printable
from treerl.report.charts import show


@dataclass
class Progress:
    """Says how far a comparison is, and how long it may last."""

    print: Callable[[str], None]
    total: int  # cells
    folder: Path
    first: int = 0  # cells that had ended before this start
    since: float = field(default_factory=time.monotonic)

    def began(self, ended: int, jobs: int) -> None:
        """Training starts."""
        self.first = ended
        before = f", {ended} of them before" if ended else ""
        self._say(f"{self.total} cells{before}, {jobs} side by side · folder {self.folder}")

    def chose(self, variant: Variant, settings: Sequence[str]) -> None:
        """The sweep is over for a variant."""
        self._say(f"the sweep chose {' '.join(settings)} for {variant.label}")

    def cell_ended(self, cell: Cell, row: Row, score: Score | None, ended: int) -> None:
        """A cell is done, or failed."""
        if row.status == "failed":
            self._say(f"[{ended}/{self.total}] {cell.name} FAILED: {row.error}")
            return
        last = row.points[-1]
        figures = ""
        if score is not None:
            figures = f"{score.title} {show(score.at(row.points[0]))} → {show(score.at(last))} in "
        spent = f"{last.iteration} iterations, {show(round(float(last.seconds or 0)))} s"
        self._say(f"[{ended}/{self.total}] {cell.name}: {figures}{spent}{self._left(ended)}")

    def stopped(self, ended: int) -> None:
        """A signal came: what is kept, and how to go on."""
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]
        if "--output" not in " ".join(words):
            words += ["--output", str(self.folder)]
        self._say(f"stopped: {ended} of {self.total} cells are kept; go on with")
        self._say(f"  {shlex.join(words)}")

    def told(self, table: str, csv: Path, report: Path) -> None:
        """The result, as far as it is known."""
        self.print(f"\n{table}\n")
        self._say(f"cells: {csv} · report: {report}")

    def _left(self, ended: int) -> str:
        trained = ended - self.first
        if trained <= 0 or ended >= self.total:
            return ""
        seconds = (time.monotonic() - self.since) / trained * (self.total - ended)
        return (
            f" · about {seconds / 60:.0f} min left"
            if seconds > 90
            else f" · about {seconds:.0f} s left"
        )

    def _say(self, text: str) -> None:
        self.print(printable(text, 1000))
