"""Draws curves over iterations as inline SVG that stretches to its box, with axis text that does not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from treerl.report.markup import Html, element, join, show

_HITS = 400  # more columns than this cannot be pointed at one by one


@dataclass(frozen=True)
class Curve:
    """A value per iteration, perhaps with a spread around it."""

    iterations: tuple[float, ...]
    values: tuple[float, ...]
    spreads: tuple[float, ...] = ()  # empty: no band


@dataclass(frozen=True)
class _Frame:
    left: float
    right: float
    low: float
    high: float

    def x(self, iteration: float) -> float:
        """The place of an iteration, 0 to 100 from left to right."""
        return 100 * (iteration - self.left) / (self.right - self.left)

    def y(self, value: float) -> float:
        """The place of a value, 0 to 100 from top to bottom."""
        return 100 * (self.high - value) / (self.high - self.low)


def smooth(values: Sequence[float]) -> list[float]:
    """A centred moving mean over about a sixth of the curve, shorter at both ends."""
    reach = max(1, len(values) // 12)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round numbers from `low` to `high`, both inside."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(
        power * factor for factor in (1, 2, 2.5, 5, 10, 20) if span / (power * factor) <= most
    )
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * index, 12) for index in range(first, last + 1)]


def line(curve: Curve, *, label: str, large: bool = False, total: float | None = None) -> Html:
    """The chart of `curve`; a large one adds the smoothed trend and makes the curve itself faint."""
    spreads = curve.spreads or (0.0,) * len(curve.values)
    low = min(value - spread for value, spread in zip(curve.values, spreads, strict=True))
    high = max(value + spread for value, spread in zip(curve.values, spreads, strict=True))
    margin = (high - low) * 0.06 or abs(high) * 0.5 or 1.0
    last = max(curve.iterations[-1], total or 0, curve.iterations[0] + 1)
    # Nothing here goes below zero unless its values do: a chart that seems to is misread.
    frame = _Frame(
        curve.iterations[0],
        last,
        low - margin if low < 0 else max(0.0, low - margin),
        high + margin,
    )
    marks = ticks(frame.low, frame.high, 5 if large else 3) if high > low else [low]
    plot = element(
        "svg",
        *(_grid(frame, mark) for mark in marks),
        *_lines(frame, curve, large),
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
    body = element("div", plot, _hits(frame, curve), class_="plot")
    return element(
        "div", *_axes(frame, marks, large), body, class_="chart large" if large else "chart"
    )


def _grid(frame: _Frame, mark: float) -> Html:
    return element("path", d=f"M0 {frame.y(mark):.2f}H100", class_="grid")


def _lines(frame: _Frame, curve: Curve, large: bool) -> list[Html]:
    drawn = []
    if curve.spreads:
        upper = [value + spread for value, spread in zip(curve.values, curve.spreads, strict=True)]
        lower = [value - spread for value, spread in zip(curve.values, curve.spreads, strict=True)]
        there, back = (
            _path(frame, curve.iterations, upper),
            _path(frame, curve.iterations[::-1], lower[::-1]),
        )
        drawn.append(element("path", d=f"{there}L{back[1:]}Z", class_="band"))
    drawn.append(
        element(
            "path",
            d=_path(frame, curve.iterations, curve.values),
            class_="raw" if large else "line",
        )
    )
    if large and len(curve.values) > 2:
        drawn.append(
            element("path", d=_path(frame, curve.iterations, smooth(curve.values)), class_="trend")
        )
    # A stroke of no length with round ends stays round however the drawing is stretched.
    end = _path(frame, curve.iterations[-1:], curve.values[-1:])
    drawn.append(element("path", d=f"{end}h0", class_="dot"))
    return drawn


def _path(frame: _Frame, iterations: Sequence[float], values: Sequence[float]) -> str:
    points = (f"{frame.x(i):.2f} {frame.y(v):.2f}" for i, v in zip(iterations, values, strict=True))
    return "M" + "L".join(points)


def _axes(frame: _Frame, marks: Sequence[float], large: bool) -> list[Html]:
    across = [
        mark for mark in ticks(frame.left, frame.right, 8 if large else 3) if mark == int(mark)
    ]
    if frame.left not in across and (
        not across or across[0] - frame.left > (frame.right - frame.left) / 12
    ):
        across = [frame.left, *across]
    rows = [element("span", show(mark), style=f"top:{frame.y(mark):.2f}%") for mark in marks]
    columns = [element("span", show(mark), style=f"left:{frame.x(mark):.2f}%") for mark in across]
    return [element("div", *rows, class_="yaxis"), element("div", *columns, class_="xaxis")]


def _hits(frame: _Frame, curve: Curve) -> Html:
    """Columns to point at: the one under the pointer shows its numbers above the chart."""
    every = max(1, math.ceil(len(curve.values) / _HITS))
    half = 50 * every / (frame.right - frame.left)
    columns = []
    for index in range(0, len(curve.values), every):
        spread = f" ± {show(curve.spreads[index])}" if curve.spreads else ""
        tip = f"iteration {show(curve.iterations[index])}: {show(curve.values[index])}{spread}"
        place = f"left:{frame.x(curve.iterations[index]) - half:.2f}%;width:{2 * half:.2f}%"
        columns.append(element("i", data_tip=tip, style=place))
    return element("div", join(columns), class_="hits")
