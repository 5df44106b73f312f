"""What `treerl plan` prints of memory and seconds."""

from typing import Any

from rich.console import Console
from rich.table import Table

_UNITS = ("bytes", "KiB", "MiB", "GiB")


def print_memory(memory: dict[str, Any], console: Console) -> None:
    """The peak by part and phase, and what fits, where they were asked for."""
    unknown = [name for name in ("peak", "fit") if memory.get(name, {}) is None]
    if unknown:
        print("peak: not known before the model is loaded")
        return
    if "peak" in memory:
        _print_peak(memory["peak"], console)
    if "fit" in memory:
        _print_fit(memory["fit"])


def print_seconds(seconds: dict[str, Any], console: Console) -> None:
    """What an iteration takes, by phase."""
    shown = Table(title=f"measured on {seconds['device']}", title_justify="left")
    for name in ("", "seconds a call", "calls an iteration", "seconds an iteration"):
        shown.add_column(name, justify="right" if name else "left")
    for name, row in seconds["phases"].items():
        each = f"{row['seconds']:.4f}"
        shown.add_row(name, each, f"{row['calls']:,.1f}", f"{row['seconds'] * row['calls']:.2f}")
    console.print(shown)
    print(
        f"an iteration: {seconds['iteration']:,.2f} s; evaluations: {seconds['evaluation']:,.2f} s"
    )
    print(f"the run: {seconds['hours']:,.2f} hours")


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    power = 0
    while count >= 1024 and power < len(_UNITS) - 1:
        count /= 1024
        power += 1
    return f"{count:,.0f} {_UNITS[power]}" if power == 0 else f"{count:,.1f} {_UNITS[power]}"


def _print_peak(peak: dict[str, Any], console: Console) -> None:
    shown = Table(title="expected memory, rewards apart", title_justify="left")
    shown.add_column("")
    shown.add_column("", justify="right")
    for name, count in peak["parts"].items():
        shown.add_row(f"stays: {name}", size(count))
    shown.add_section()
    for name, count in peak["phases"].items():
        shown.add_row(f"peak: {name}", size(count))
    console.print(shown)
    needed = size(peak["needed_bytes"])
    print(f"peak: {size(peak['bytes'])} in {peak['phase']}; a card needs about {needed}")


def _print_fit(fit: dict[str, Any]) -> None:
    room = size(fit["for_bytes"])
    needed = size(fit["needed_bytes"])
    if fit["rows"]:
        print(
            f"{room}: train.micro_batch_size={fit['rows']} is the most that fits (needs {needed}); "
            f"one more does not, because of {fit['binding']}"
        )
        return
    print(f"{room}: not even one row fits (needs {needed}), because of {fit['binding']}")
    for change in fit["advice"]:
        fits = "fits" if change["fits"] else "does not fit yet"
        print(f"  {change['set']}: needs {size(change['needed_bytes'])}, {fits}")
