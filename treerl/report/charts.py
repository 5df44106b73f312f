"""Chooses the curves of a run, says what each one means, and computes the paths that draw it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from treerl.run.files import MetricsRow, Summary

_HITS = 400  # columns of a chart that show their number

_CAPTIONS = {
    "reward": "mean reward of the samples that were drawn to train on",
    "rewards": "mean of this reward alone, before its weight",
    "reward_std": "standard deviation of the reward among samples of one prompt",
    "reward_stds": "its standard deviation among samples of one prompt",
    "reward_shares": "its share in the variance that is trained on",
    "advantage_abs": "mean size of the learning signal on an edge",
    "effective_leaves": "independent samples that the leaves of a prompt are worth",
    "sibling_std": "spread of the values of siblings: what a split decides",
    "variance_by_step": "variance of the reward that each step decides; -1 is between trees",
    "zero_advantages": "share of sampled edges that teach nothing",
    "clipped_advantages": "share of sampled edges whose advantage was cut",
    "zero_std_prompts": "prompts whose samples all scored the same: they teach nothing",
    "clip_fraction": "share of the update that the clip held back",
    "ratio_deviation": "replayed against sampled policy before the first step; 0 is exact",
    "grad_norm": "largest length of the gradient, before it is clipped",
    "loss": "the objective; it need not fall",
    "dropped_trees": "trees that were left out as a reward could not score them",
    "window_start": "the step from which on trees branch",
    "sampling_forwards": "evaluations of the network to draw the samples",
    "update_forwards": "evaluations of the network to learn from them",
    "reference_forwards": "evaluations of the network with other weights, to compare with",
    "rows": "states in every forward",
    "leaves": "finished samples",
    "edges": "sampled steps that were learned from",
    "seconds": "time that the iteration took",
}
_BY_REWARD = ("rewards", "reward_stds", "reward_shares")
_HELD_OUT = {
    "reward": "mean reward of the held-out samples",
    "measures": "a further figure of a reward",
    "watched": "a reward that is only watched: nothing trains on it",
    "quality": "no reward sees it: if it moves while the reward rises, look at the images",
}


@dataclass(frozen=True)
class Curve:
    """A figure over iterations."""

    name: str
    caption: str
    points: tuple[tuple[float, float], ...]  # (iteration, value)
    spreads: tuple[float, ...] = ()  # ± around each value; empty for none

    @property
    def constant(self) -> bool:
        """Whether there is nothing to draw."""
        return len({value for _, value in self.points}) < 2


def training(rows: Sequence[MetricsRow]) -> list[Curve]:
    """Every figure of the iterations, the known ones first; one reward alone equals the total."""
    order = list(_CAPTIONS)
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        for field, name, value in _figures(row.model_dump(exclude={"iteration", "heldout"})):
            if field not in _BY_REWARD or len(row.rewards) > 1:
                points.setdefault((field, name), []).append((row.iteration, value))
    curves = []
    for field, name in sorted(
        points, key=lambda key: order.index(key[0]) if key[0] in order else 99
    ):
        caption = _CAPTIONS.get(field, "a figure that this run reported, in every iteration")
        spreads = tuple(row.reward_std or 0.0 for row in rows if row.reward is not None)
        values = tuple(points[field, name])
        spread = spreads if field == "reward" else ()
        curves.append(Curve(_title(field, name), caption, values, spread))
    return curves


def held_out(evaluations: Sequence[tuple[int, Summary]]) -> list[Curve]:
    """Every figure of the held-out evaluations, by the iterations after which they were made."""
    points: dict[tuple[str, str], dict[float, float]] = {}
    for iteration, summary in evaluations:
        for field, name, value in _figures(summary.model_dump(exclude={"samples"})):
            points.setdefault((field, name), {})[iteration] = value
    curves = []
    for field in _HELD_OUT:
        for key, values in points.items():
            if key[0] == field:
                name = _title(key[1] or field, "")
                curves.append(Curve(name, _HELD_OUT[field], tuple(sorted(values.items()))))
    return curves


def _figures(fields: Mapping[str, object]) -> Iterator[tuple[str, str, float]]:
    """(field, name in it or "", value) of every number."""
    for field, value in fields.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for name, number in inner:
            if isinstance(number, int | float):
                yield field, str(name), number


def _title(field: str, name: str) -> str:
    words = field.replace("_", " ")
    return f"{words} · {name}" if name else words


@dataclass(frozen=True)
class Chart:
    """What draws a curve in a box of 100 × 100 that stretches."""

    curve: Curve
    line: str
    band: str
    trend: str  # the smoothed curve
    end: str  # a dot at the last value
    columns: list[tuple[float, str]]  # labels of iterations and where they stand, in percent
    rows: list[tuple[float, str]]
    hits: list[tuple[float, float, str]]  # left, width, what to say there


def chart(curve: Curve, iterations: float = 0, large: bool = False) -> Chart:
    """The chart of a curve with at least one point, up to the planned number of iterations."""
    times = [time for time, _ in curve.points]
    values = [value for _, value in curve.points]
    spreads = curve.spreads or (0.0,) * len(values)
    upper = [value + spread for value, spread in zip(values, spreads, strict=True)]
    lower = [value - spread for value, spread in zip(values, spreads, strict=True)]
    margin = (max(upper) - min(lower)) * 0.06 or abs(max(upper)) * 0.5 or 1.0
    bottom = min(lower) - margin
    if min(lower) >= 0:  # a chart that seems to go below zero is misread
        bottom = max(0.0, bottom)
    top = max(upper) + margin
    right = max(times[-1], iterations, times[0] + 1)

    def x(time: float) -> float:
        return 100 * (time - times[0]) / (right - times[0])

    def y(value: float) -> float:
        return 100 * (top - value) / (top - bottom)

    def path(heights: Sequence[float]) -> str:
        pairs = zip(times, heights, strict=True)
        return "M" + "L".join(f"{x(time):.2f} {y(value):.2f}" for time, value in pairs)

    back = [f"{x(time):.2f} {y(value):.2f}" for time, value in zip(times, lower, strict=True)]
    every = math.ceil(len(times) / _HITS)
    half = 50 * every / (right - times[0])
    hits = []
    for number in range(0, len(times), every):
        spread = f" ± {show(spreads[number])}" if curve.spreads else ""
        words = f"iteration {show(times[number])}: {show(values[number])}{spread}"
        hits.append((x(times[number]) - half, 2 * half, words))
    marks = [mark for mark in ticks(times[0], right, 8 if large else 3) if mark == int(mark)]
    return Chart(
        curve=curve,
        line=path(values),
        band=f"{path(upper)}L{'L'.join(reversed(back))}Z" if curve.spreads else "",
        trend=path(smooth(values)) if large and len(values) > 2 else "",
        end=f"M{x(times[-1]):.2f} {y(values[-1]):.2f}h0",
        columns=[(x(mark), show(mark)) for mark in marks],
        rows=[(y(mark), show(mark)) for mark in ticks(bottom, top, 5 if large else 4)],
        hits=hits,
    )


def smooth(values: Sequence[float]) -> list[float]:
    """A centred moving mean over about a sixth of the curve, shorter at both ends."""
    reach = max(1, len(values) // 12)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round numbers from `low` to `high`, both inside."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    fitting = (
        power * factor for factor in (1, 2, 2.5, 5, 10, 20) if high - low <= most * power * factor
    )
    step = next(fitting)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(step * index, 12) for index in range(first, last + 1)]


def show(value: float | None) -> str:
    """A number as people read it: grouped whole numbers, four significant digits, – for nothing."""
    if value is None:
        return "–"
    if abs(value) >= 1e15:
        text = f"{value:.3g}"
    elif value == int(value) or abs(value) >= 1e4:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.4g}"
    return text.replace("-", "−")


def signed(value: float) -> str:
    """A number of two decimals with its sign; one that rounds to nothing has none."""
    text = f"{value:+.2f}"
    return text.replace("-", "−") if float(text) else "0.00"


def decimal(value: float | None) -> str:
    """A number of two decimals, – for nothing."""
    return "–" if value is None else signed(value).removeprefix("+")
