"""What a run prints while it goes on: a live line in a terminal, plain lines elsewhere."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINES = 20  # at most so many plain lines for the iterations of a run


class Display:
    """The progress of a run; use it as a context manager."""

    def __init__(self, console: Console, iterations: int) -> None:
        self._console = console
        self._iterations = iterations
        self._trend: float | None = None
        self._forwards = 0
        self._seconds = 0.0
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self._bar.add_task("training", total=iterations, figures="", visible=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def iteration(self, row: Mapping[str, Any]) -> None:
        """The figures of a finished iteration."""
        reward, number = float(row["reward"]), int(row["iteration"])
        before = self._trend
        self._trend = reward if before is None else 0.9 * before + 0.1 * reward
        self._forwards += int(row["forwards"]) + int(row["update_forwards"])
        self._seconds += float(row["seconds"])
        arrow = (
            "→"
            if before is None or abs(self._trend - before) < 1e-4
            else "↗"
            if self._trend > before
            else "↘"
        )
        figures = (
            f"reward {reward:.3f}  trend {self._trend:.3f} {arrow}  {self._forwards:,} forwards"
        )
        if self._console.is_terminal:
            self._bar.update(self._task, completed=number, figures=figures, visible=True)
            return
        every = max(1, -(-self._iterations // _LINES))
        if number % every == 0 or number in (1, self._iterations):
            left = self._seconds / number * (self._iterations - number)
            self.say(f"iteration {number:>4}/{self._iterations}  {figures}  {left:.0f} s left")
