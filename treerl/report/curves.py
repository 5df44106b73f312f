"""Chooses which curves of a run are drawn, in which order, and says in words what each one means."""

from collections.abc import Mapping, Sequence
from typing import Any

from treerl.report import charts
from treerl.report.markup import Html, element, join, number, show

_WORDS = {
    "clip_fraction": "share of updates held back by clipping",
    "grad_norm": "length of the gradient before clipping",
    "reward_spread": "standard deviation among pictures of one caption",
    "ratio_deviation": "replayed against sampled policy; 0 is exact",
    "advantage_abs": "mean size of the learning signal on an edge",
    "zero_groups": "captions whose pictures all scored the same",
    "loss": "the objective; it need not fall",
    "seconds": "wall time of an iteration",
}
# shown elsewhere, or the same every time
_APART = {"iteration", "reward", "start", "forwards", "update_forwards", "leaves", "edges"}


def reward(metrics: Sequence[Mapping[str, Any]], total: float | None) -> Html:
    """The reward of the sampled pictures over iterations, with its trend and its spread."""
    curve = _curve(metrics, ("reward",), spread="reward_spread")
    if curve is None:
        return element("p", "No iteration was finished, so there is no curve yet.", class_="note")
    keys = [element("span", element("i"), "trend")] if len(curve.values) > 2 else []
    keys.append(element("span", element("i", class_="m-raw"), "mean of an iteration"))
    if curve.spreads:
        keys.append(
            element("span", element("i", class_="m-band"), "± spread among pictures of one caption")
        )
    chart = charts.line(curve, label="reward over iterations", large=True, total=total)
    return element("div", element("div", *keys, class_="marks"), chart, class_="card")


def others(metrics: Sequence[Mapping[str, Any]], total: float | None) -> Html:
    """Every other number of the rows as a small chart."""
    drawn = []
    for path in _paths(metrics):
        curve = _curve(metrics, path)
        if curve is not None:
            name = " · ".join(path).replace("_", " ")
            head = element(
                "header",
                element("h3", name),
                element("b", show(curve.values[-1]), title="last iteration"),
            )
            words = element("p", _WORDS.get(path[-1], _nested(path)))
            drawn.append(
                element(
                    "div", head, words, charts.line(curve, label=name, total=total), class_="card"
                )
            )
    return element("div", join(drawn), class_="small")


def _nested(path: tuple[str, ...]) -> str:
    return {"quality": "a quality the reward does not see", "rewards": "one of the rewards"}.get(
        path[0], ""
    )


def _paths(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The keys that hold numbers, known ones first; one reward alone equals the total and is left out."""
    found: dict[tuple[str, ...], None] = {(key,): None for key in _WORDS}
    for row in metrics:
        for key, value in row.items():
            if isinstance(value, dict):
                if key != "rewards" or len(value) > 1:
                    found.update({(key, str(inner)): None for inner in value})
            elif key not in _APART:
                found[(key,)] = None
    return list(found)


def _curve(
    metrics: Sequence[Mapping[str, Any]], path: tuple[str, ...], spread: str = ""
) -> charts.Curve | None:
    points = [(row["iteration"], _at(row, path), number(row.get(spread))) for row in metrics]
    known = [(iteration, value, around) for iteration, value, around in points if value is not None]
    if not known:
        return None
    iterations, values, spreads = zip(*known, strict=True)
    return charts.Curve(
        iterations, values, spreads if all(around is not None for around in spreads) else ()
    )


def _at(row: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = row
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return number(value)
