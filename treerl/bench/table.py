"""The result as a Markdown table, and estimates as text."""

from collections.abc import Iterator

from treerl.bench.result import Result
from treerl.bench.standing import Reached, Standing, best, gap
from treerl.bench.statistic import Estimate
from treerl.report.charts import show

DIVERSITY = "quality.diversity"


def markdown(result: Result) -> str:
    """The recipes, the largest area first."""
    titles = _titles(result)
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for standing in ordered(result):
        lines.append("| " + " | ".join(_cells(result, standing)) + " |")
    unit = result.budget.kind
    lines.append("")
    first = result.names[result.standings[0].variant]
    lines.append(
        f"Interquartile means over seeds with 95 % bootstrap intervals, at {result.budget.text}; "
        f"linear between evaluations. area: mean of {result.score.title} over the marks. "
        f"less: paired with `{first}`, by seed. costs in {unit}."
    )
    return "\n".join(lines)


def ordered(result: Result) -> list[Standing]:
    """The standings, the largest area first; those without one at the end."""

    def height(standing: Standing) -> float:
        return -float("inf") if standing.area is None else standing.area.value

    return sorted(result.standings, key=height, reverse=True)


def figures_shown(result: Result) -> list[str]:
    """The held-out figures that a table has beside the score: reward, watched ones, diversity."""
    names = dict.fromkeys(name for standing in result.standings for name in standing.ends)
    kept = [name for name in names if name == "reward" or name.startswith("watched.")]
    kept += [name for name in (DIVERSITY,) if name in names]
    return [name for name in kept if name != result.score.name]


def seeds(standing: Standing) -> str:
    """How many seeds the figures are over."""
    told = f"{len(standing.done)} of {standing.seeds}"
    text = str(standing.seeds) if len(standing.done) == standing.seeds else told
    return f"{text}, {standing.failed} failed" if standing.failed else text


def words(estimate: Estimate | None) -> str:
    """`0.912 [0.901, 0.930]`."""
    if estimate is None:
        return "–"
    numbers = [_digits(value) for value in (estimate.value, estimate.low, estimate.high)]
    if estimate.runs < 2:
        return numbers[0]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def difference(estimate: Estimate | None) -> str:
    """`+0.050 [+0.005, +0.095]`."""
    if estimate is None:
        return "–"
    numbers = [
        f"{value:+.3f}".replace("-", "−") for value in (estimate.value, estimate.low, estimate.high)
    ]
    if estimate.runs < 2:
        return numbers[0]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def cost(reached: Reached, unit: str) -> str:
    """`12,300, 31 s (4 of 5)`."""
    count = f"({reached.count} of {reached.out_of})"
    if reached.cost is None or reached.seconds is None:
        return f"– {count}"
    seconds = f"{show(round(reached.seconds.value))} s"
    if unit == "seconds":
        return f"{seconds} {count}"
    return f"{show(round(reached.cost.value))}, {seconds} {count}"


def _digits(value: float) -> str:
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
    return text.replace("-", "−")


def _titles(result: Result) -> list[str]:
    titles = ["recipe", "seeds", result.score.title, "area", "less"]
    titles += [name.rpartition(".")[2] for name in figures_shown(result)]
    titles += [f"cost to {level:g}" for level in result.score.levels]
    return [*titles, "iterations", "seconds"]


def _cells(result: Result, standing: Standing) -> Iterator[str]:
    first = result.standings[0]
    yield f"`{standing.variant.label}`"
    yield seeds(standing)
    yield words(standing.ends.get(result.score.name))
    yield words(standing.area)
    yield "" if standing is first else difference(gap(standing, first, result.score).area)
    for name in figures_shown(result):
        yield words(standing.ends.get(name))
    for reached in standing.reached:
        yield cost(reached, result.budget.kind)
    for estimate in (standing.iterations, standing.seconds):
        yield "–" if estimate is None else f"{estimate.value:,.0f}"


def headline(result: Result) -> str:
    """The recipe of the largest area, in words."""
    leader = best(result.standings)
    if leader is None:
        return "No recipe was trained to the end."
    return f"{result.names[leader.variant]} {words(leader.area)}"
