"""Draws what a gradient costs, step by step, as an SVG that needs no other program."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_COLOURS = ("#888888", "#c28f2c", "#3a6ea5", "#5aa469", "#b3424a")
_WIDTH = 330  # of a panel
_HEIGHT = 260
_LEFT = 56
_TOP = 66
_GAP = 70
_FONT = 'font-family="system-ui, sans-serif"'


@dataclass(frozen=True)
class Line:
    """A way to sample and compare, in every panel."""

    label: str
    exact: Mapping[str, Sequence[float]]  # panel: a value for each step
    simulated: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class _Panel:
    title: str
    left: float
    steps: Sequence[int]
    bottom: float  # log10 of the lowest value
    top: float

    def x(self, place: int) -> float:
        """The middle of a step's column."""
        return self.left + _WIDTH * (place + 0.5) / len(self.steps)

    def y(self, value: float) -> float:
        """The height of a value."""
        share = (math.log10(value) - self.bottom) / (self.top - self.bottom)
        return _TOP + _HEIGHT * (1 - share)


def draw(caption: str, lines: Sequence[Line], steps: Sequence[int]) -> str:
    """A panel for each name in the lines' values; curves are exact, dots simulated."""
    titles = list(lines[0].exact)
    values = [v for line in lines for title in titles for v in line.exact[title]]
    bottom = math.log10(min(values) / 1.25)
    top = math.log10(max(values) * 1.25)
    parts = [_text(_LEFT, 20, caption, "start", 14)]
    for number, title in enumerate(titles):
        panel = _Panel(title, _LEFT + number * (_WIDTH + _GAP), steps, bottom, top)
        parts += _axes(panel)
        for line, colour in zip(lines, _COLOURS, strict=True):
            parts += _curve(panel, line, colour)
    width = _LEFT + len(titles) * (_WIDTH + _GAP) - _GAP + 14
    for number, line in enumerate(lines):
        x = _LEFT + (number % 3) * 250
        y = _TOP + _HEIGHT + 58 + 22 * (number // 3)
        parts.append(f'<path d="M{x} {y - 4}h22" stroke="{_COLOURS[number]}" stroke-width="2.5"/>')
        parts.append(_text(x + 28, y, line.label, "start"))
    height = _TOP + _HEIGHT + 58 + 22 * ((len(lines) - 1) // 3) + 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    paper = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([f'{head} width="{width}" height="{height}">', paper, *parts, "</svg>\n"])


def _axes(panel: _Panel) -> list[str]:
    parts = [_text(panel.left, _TOP - 14, panel.title, "start")]
    for power in range(math.floor(panel.bottom), math.ceil(panel.top)):
        for factor in (1, 2, 5):
            mark = factor * 10**power
            if panel.bottom <= math.log10(mark) <= panel.top:
                y = panel.y(mark)
                parts.append(f'<path d="M{panel.left} {y:.1f}h{_WIDTH}" stroke="#dddddd"/>')
                parts.append(_text(panel.left - 8, y + 4, f"{mark:g}", "end"))
    for place, step in enumerate(panel.steps):
        parts.append(_text(panel.x(place), _TOP + _HEIGHT + 20, f"step {step}", "middle"))
    return parts


def _curve(panel: _Panel, line: Line, colour: str) -> list[str]:
    places = []
    for place, value in enumerate(line.exact[panel.title]):
        places.append(f"{panel.x(place):.1f} {panel.y(value):.1f}")
    path = "M" + "L".join(places)
    parts = [f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for place, value in enumerate(line.simulated[panel.title]):
        where = f'cx="{panel.x(place):.1f}" cy="{panel.y(value):.1f}"'
        parts.append(f'<circle {where} r="4" fill="{colour}"/>')
    return parts


def _text(x: float, y: float, words: str, anchor: str, size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} {_FONT} fill="#222222">{html.escape(words)}</text>'
