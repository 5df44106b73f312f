"""The page of a comparison: one self-contained file, with the style of a run's page."""

import shlex
from collections.abc import Sequence
from statistics import fmean

from markupsafe import Markup

from treerl.bench import plots
from treerl.bench.budget import KINDS
from treerl.bench.plots import Plot
from treerl.bench.result import Result
from treerl.bench.standing import best, gap
from treerl.bench.statistic import ENOUGH, REPEATS
from treerl.bench.table import (
    DIVERSITY,
    cost,
    difference,
    figures_shown,
    headline,
    ordered,
    seeds,
    words,
)
from treerl.report.page import environment

_BEYOND = 1.1  # of the budget: an iteration is too large for it
_CAPTIONS = {
    "reward": "mean reward of the held-out samples, which is trained on",
    "measures": "a further figure of a reward",
    "watched": "a reward that is only watched: nothing trains on it",
    "quality": "no reward sees it: if it moves while the reward rises, look at the images",
}


def render(result: Result) -> str:
    """The whole page."""
    templates = environment("bench")
    style, _, _ = templates.loader.get_source(templates, "bench.css")  # type: ignore[union-attr]
    templates.filters |= {"words": words, "difference": difference, "cost": cost}
    score = result.score
    main = plots.curves(result, score.name, "the figure that recipes are compared by", large=True)
    names = list(dict.fromkeys(name for s in result.standings for name in s.curves))
    constant = constants(result, names)
    others = [name for name in names if name not in (score.name, *constant)]
    drawn = [plots.curves(result, name, _caption(name)) for name in others]
    return templates.get_template("bench.html.j2").render(
        bench_style=Markup(style),
        result=result,
        declaration=result.declaration,
        score=score,
        title=title(result),
        headline=headline(result),
        warnings=warnings(result),
        standings=ordered(result),
        places={s.variant: place for place, s in enumerate(result.standings)},
        shown=figures_shown(result),
        seeds=seeds,
        main=main,
        plots=[plot for plot in drawn if plot is not None],
        trade_offs=trade_offs(result),
        constant=", ".join(name.rpartition(".")[2] for name in constant),
        front=on_front(result),
        gaps=gaps(result),
        fmean=fmean,
        repeats=REPEATS,
        unit=KINDS[result.budget.kind],
        command=shlex.join(result.declaration.command),
    )


def title(result: Result) -> str:
    """What was compared: `sd35 (tiny) · reward 1 × shapes · forwards=40000 · 5 seeds`."""
    declaration = result.declaration
    count = len(declaration.seeds)
    rewards = " + ".join(name.removeprefix("1 × ") for name in declaration.rewards)
    parts = [f"bench {declaration.model}", f"reward {rewards}", declaration.budget]
    return " · ".join([*parts, f"{count} seed{'s' if count > 1 else ''}"])


def warnings(result: Result) -> list[str]:
    """What somebody must know before trusting the rest of the page."""
    texts = []
    missing = result.planned - len(result.rows)
    if missing > 0:
        texts.append(f"Not complete: {missing} of {result.planned} cells have not been trained.")
    for standing in result.standings:
        if standing.failed:
            texts.append(
                f"{standing.variant.label}: {standing.failed} of {len(standing.rows)} seeds "
                "failed; its figures are those of the others, which flatters it."
            )
    count = len(result.declaration.seeds)
    if count < ENOUGH:
        texts.append(
            f"{count} seed{'s' if count > 1 else ''}: such an interval is a rough guess, and too "
            f"narrow; take {ENOUGH} or more before you call anything a finding."
        )
    for standing in result.standings:
        if standing.spent is not None and standing.spent.value > _BEYOND * result.budget.amount:
            more = standing.spent.value / result.budget.amount - 1
            texts.append(
                f"{standing.variant.label}: its last iteration went {more:.0%} beyond the budget; "
                "its figures are interpolated. Take a larger budget."
            )
    versions = {tuple(sorted(row.versions.items())) for row in result.rows}
    if len(versions) > 1:
        texts.append(
            "Cells were trained with different versions of packages; they may round otherwise."
        )
    if result.left_aside:
        texts.append(
            f"{result.left_aside} cells of the folder have other settings; they are left aside."
        )
    return texts


def trade_offs(result: Result) -> list[Plot]:
    """The score against diversity, and against the time that it took."""
    drawn = [
        plots.against(
            result,
            "diversity",
            "at the end of the budget: up and to the right is better",
            lambda standing: standing.ends.get(DIVERSITY),
        ),
        plots.against(
            result,
            "seconds",
            "of training, at the end of the budget: up and to the left is better",
            lambda standing: standing.seconds,
        ),
    ]
    return [plot for plot in drawn if plot is not None]


def constants(result: Result, names: Sequence[str]) -> list[str]:
    """The held-out figures that never changed, in any recipe."""
    same = []
    for name in names:
        estimates = [e for standing in result.standings for e in standing.curves.get(name, ())]
        if len({bound for e in estimates for bound in (e.low, e.high)}) == 1:
            same.append(name)
    return same


def on_front(result: Result) -> list[str]:
    """The recipes that no other beats in the score and in diversity."""
    known = []
    for standing in result.standings:
        across = standing.ends.get(DIVERSITY)
        up = standing.ends.get(result.score.name)
        if across is not None and up is not None:
            known.append((result.names[standing.variant], (across.value, up.value)))
    kept = plots.front([point for _, point in known])
    return [label for (label, _), keep in zip(known, kept, strict=True) if keep]


def gaps(result: Result) -> list[tuple[str, list[tuple[str, object]]]]:
    """Paired differences to the first recipe and to the best one, as (title, rows)."""
    leader = best(result.standings)
    others = [("the first recipe", result.standings[0])]
    if leader is not None and leader is not result.standings[0]:
        others.append(("the recipe of the largest area", leader))
    tables = []
    for words_, other in others:
        rows: list[tuple[str, object]] = []
        for standing in ordered(result):
            if standing is not other:
                rows.append((result.names[standing.variant], gap(standing, other, result.score)))
        tables.append((f"Less {words_}, {result.names[other.variant]}", rows))
    return [(name, rows) for name, rows in tables if rows]


def _caption(name: str) -> str:
    return _CAPTIONS[name.partition(".")[0]]
