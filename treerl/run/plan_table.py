"""What `treerl plan` prints: the plan of a configuration, and the memory that it needs."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from treerl.config.algorithm import algorithm_of
from treerl.config.schema import Config
from treerl.run.claim import refuse_taken
from treerl.run.memory import memory
from treerl.run.memory_table import print_memory, print_seconds
from treerl.run.needs import foresee
from treerl.run.plan import plan_of
from treerl.run.quiet import quiet


def table(
    config: Config, with_peak: bool = False, size: int | None = None, measured: bool = False
) -> dict[str, Any]:
    """Everything that is known before a model is loaded; refuses what a run would refuse.

    Seconds dearer: the peak of the memory, and the rows that fit into a card of `size` bytes.
    With `measured` the model is loaded, and the phases are timed.
    """
    quiet()
    if config.output is not None:
        refuse_taken(Path(config.output))
    plan = plan_of(config, algorithm_of(config))
    foresee(config, plan)
    figures = {**plan.table(), "memory": memory(config, plan)}
    # models are built for these, on no memory or really: what they need is slow to import
    if with_peak or size is not None:
        from treerl.run.fit import fit
        from treerl.run.forecast import Forecast

        forecast = Forecast.of(config)
        if with_peak:
            peak = forecast and forecast.at(config.train.micro_batch_size)
            figures["memory"]["peak"] = peak and peak.plain()
        if size is not None:
            figures["memory"]["fit"] = forecast and fit(forecast, size).plain()
    if measured:
        from treerl.run.measure import measure

        figures["seconds"] = measure(config)
    return figures


def print_table(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    console = Console()
    per_prompt = dict(figures["per_prompt"])
    starts = per_prompt.pop("by_start")
    columns = {
        "per prompt": per_prompt,
        "per iteration": figures["per_iteration"],
        "run": figures["run"],
    }
    title = f"{figures['recipe']}: expected work"
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for name in columns:
        shown.add_column(name, justify="right")
    names = dict.fromkeys(name for column in columns.values() for name in column)
    for name in names:
        cells = [_figure(column.get(name)) for column in columns.values()]
        shown.add_row(name.replace("_", " "), *cells)
    console.print(shown)
    if len({row["sampling_forwards"] for row in starts}) > 1:
        for row in starts:
            forwards = row["sampling_forwards"]
            print(f"window from step {row['start']}: {forwards:,} sampling forwards a prompt")
    for name, value in figures["memory"].items():
        if name in ("peak", "fit"):
            continue
        print(f"{name.replace('_', ' ')}: {_figure(value)}")
    print_memory(figures["memory"], console)
    if "seconds" in figures:
        print_seconds(figures["seconds"], console)


def _figure(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
