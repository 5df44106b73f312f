"""Computes the paths of a comparison's plots, in a box of 100 × 100 that stretches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from treerl.bench.result import Result
from treerl.bench.standing import Standing
from treerl.bench.statistic import Estimate
from treerl.bench.table import words
from treerl.report.charts import show, ticks

Across = Callable[[Standing], Estimate | None]
COLOURS = 8  # that the style has; more recipes share them, with dashes


@dataclass(frozen=True)
class Line:
    """A recipe in a plot."""

    label: str
    colour: int
    dashed: bool
    path: str
    band: str  # between the ends of its intervals
    dots: tuple[tuple[str, str], ...]  # where, and what to say there


@dataclass(frozen=True)
class Plot:
    """What is drawn, and what stands at the axes."""

    name: str
    caption: str
    across: str  # what the horizontal axis is
    lines: tuple[Line, ...]
    columns: tuple[tuple[float, str], ...]  # labels and where they stand, in percent
    rows: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class _Box:
    left: float
    right: float
    bottom: float
    top: float

    def place(self, x: float, y: float) -> str:
        """A point of the plane in the box."""
        across = 100 * (x - self.left) / (self.right - self.left)
        down = 100 * (self.top - y) / (self.top - self.bottom)
        return f"{across:.2f} {down:.2f}"

    def columns(self, most: int) -> tuple[tuple[float, str], ...]:
        """Labels of the horizontal axis."""
        width = self.right - self.left
        marks = ticks(self.left, self.right, most)
        return tuple((100 * (mark - self.left) / width, show(mark)) for mark in marks)

    def rows(self, most: int) -> tuple[tuple[float, str], ...]:
        """Labels of the vertical axis."""
        height = self.top - self.bottom
        marks = ticks(self.bottom, self.top, most)
        return tuple((100 * (self.top - mark) / height, show(mark)) for mark in marks)


def curves(result: Result, name: str, caption: str, large: bool = False) -> Plot | None:
    """A held-out figure over what was spent, a line and a band a recipe; None without any."""
    drawn = [
        (place, standing)
        for place, standing in enumerate(result.standings)
        if standing.curves.get(name)
    ]
    if not drawn:
        return None
    estimates = [value for _, standing in drawn for value in standing.curves[name]]
    amount = result.budget.amount
    bottom, top = _range([e.low for e in estimates], [e.high for e in estimates])
    box = _Box(0.0, amount, bottom, top)
    step = amount / result.declaration.marks
    lines = []
    for place, standing in drawn:
        label = result.names[standing.variant]
        lines.append(_curve(standing.curves[name], label, place, step, box))
    title = name.rpartition(".")[2]
    rows = box.rows(5 if large else 4)
    return Plot(
        title, caption, result.budget.kind, tuple(lines), box.columns(5 if large else 2), rows
    )


def _curve(estimates: Sequence[Estimate], label: str, place: int, step: float, box: _Box) -> Line:
    places = [mark * step for mark in range(len(estimates))]
    middle = [box.place(x, e.value) for x, e in zip(places, estimates, strict=True)]
    upper = [box.place(x, e.high) for x, e in zip(places, estimates, strict=True)]
    lower = [box.place(x, e.low) for x, e in zip(places, estimates, strict=True)]
    dots = []
    for x, where, estimate in zip(places, middle, estimates, strict=True):
        dots.append((f"M{where}h0", f"{label} at {show(x)}: {words(estimate)}"))
    return Line(
        label=label,
        colour=place % COLOURS,
        dashed=place >= COLOURS,
        path="M" + "L".join(middle),
        band="M" + "L".join([*upper, *reversed(lower)]) + "Z",
        dots=tuple(dots),
    )


def against(result: Result, name: str, caption: str, across: Across) -> Plot | None:
    """The score against another figure at the end, a cross of intervals a recipe; None without."""
    drawn: list[tuple[int, str, Estimate, Estimate]] = []
    for place, standing in enumerate(result.standings):
        x = across(standing)
        y = standing.ends.get(result.score.name)
        if x is not None and y is not None:
            drawn.append((place, result.names[standing.variant], x, y))
    if not drawn:
        return None
    left, right = _range([x.low for _, _, x, _ in drawn], [x.high for _, _, x, _ in drawn])
    bottom, top = _range([y.low for *_, y in drawn], [y.high for *_, y in drawn])
    box = _Box(left, right, bottom, top)
    lines = []
    for place, label, x, y in drawn:
        text = f"{label}: {result.score.title} {words(y)}, {name} {words(x)}"
        lines.append(_cross(place, label, x, y, box, text))
    heading = f"{result.score.title} against {name}"
    return Plot(heading, caption, name, tuple(lines), box.columns(5), box.rows(5))


def _cross(place: int, label: str, x: Estimate, y: Estimate, box: _Box, text: str) -> Line:
    wide = f"M{box.place(x.low, y.value)}L{box.place(x.high, y.value)}"
    high = f"M{box.place(x.value, y.low)}L{box.place(x.value, y.high)}"
    dot = (f"M{box.place(x.value, y.value)}h0", text)
    return Line(label, place % COLOURS, place >= COLOURS, wide + high, "", (dot,))


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other one beats in both figures."""
    kept = []
    for x, y in points:
        beaten = any(u >= x and v >= y and (u, v) != (x, y) for u, v in points)
        kept.append(not beaten)
    return kept


def _range(low: Sequence[float], high: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest, with a margin; not below 0 where nothing is."""
    margin = (max(high) - min(low)) * 0.06 or abs(max(high)) * 0.5 or 1.0
    bottom = min(low) - margin
    return (max(0.0, bottom) if min(low) >= 0 else bottom), max(high) + margin
