"""The command `treerl bench`; nothing slow is imported before it is called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from treerl.config.flags import Given, takes_given

if TYPE_CHECKING:
    from treerl.bench.declared import TuneBy

Recipes = Annotated[
    list[str],
    typer.Option(
        "--recipes",
        metavar="A,B:path=value,...",
        help="What is compared (treerl list recipes), each with settings of its own; may be "
        "repeated. The first is the one that the others' differences are to.",
    ),
]
BudgetText = Annotated[
    str,
    typer.Option(
        "--budget",
        metavar="KIND=N",
        help="What each recipe may spend with each seed: forwards=N (sampling + reference + "
        "3 × update), seconds=N of training, or rewards=N calls. Held-out evaluations are free.",
    ),
]
Seeds = Annotated[
    int, typer.Option(min=1, max=10_000, metavar="K", help="Seeds of each recipe, from `seed` on.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        metavar="J",
        help="Cells side by side; by default one a GPU, or one a core where there is none.",
    ),
]
Marks = Annotated[
    int,
    typer.Option(
        min=1, max=1000, metavar="M", help="Held-out evaluations, at even shares of the budget."
    ),
]
SweepTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="path=V,...|FILE",
        help="Tune each recipe first, on seeds that the comparison does not use: every value with "
        "each other one. A FILE (YAML) may give each recipe axes of its own. May be repeated.",
    ),
]
SweepSeeds = Annotated[
    int, typer.Option(min=1, max=1000, metavar="N", help="Seeds of the sweep, from 100 on.")
]
TuneByText = Annotated[
    str,
    typer.Option(
        "--tune-by",
        metavar="area|end",
        help="What the sweep looks at: the mean of the held-out figure over the marks, or what it "
        "is when the budget is spent.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The folder, new or to go on with; by default the next runs/bench-NNNN.",
    ),
]
ScoreName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Held-out figure that is compared; by default `right`, or else the reward.",
    ),
]
Levels = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,...", help="Levels of it whose cost is told; by default .8,.9,.95 of `right`."
    ),
]


@takes_given("recipe", "output")
def bench(
    given: Given,
    recipes: Recipes,
    budget: BudgetText,
    seeds: Seeds = 5,
    jobs: Jobs = None,
    output: Output = None,
    marks: Marks = 4,
    sweep: SweepTexts = None,
    sweep_seeds: SweepSeeds = 1,
    tune_by: TuneByText = "area",
    score: ScoreName = None,
    levels: Levels = None,
) -> None:
    """Compare recipes at equal budgets over seeds; ended and called again, it goes on."""
    from treerl.bench import budget as budgets, declared, sweep as sweeps
    from treerl.bench.start import Wishes, start
    from treerl.bench.variant import variants
    from treerl.config.announce import announce

    config = given.config()
    announce(config)
    comparison = declared.Declared(
        given=given,
        variants=variants(recipes),
        budget=budgets.parse(budget),
        marks=marks,
        seeds=range(config.seed, config.seed + seeds),
        sweep=sweeps.parse(sweep or []),
        tuning_seeds=range(declared.TUNING, declared.TUNING + sweep_seeds),
        tune_by=_tune_by(tune_by),
    )
    wishes = Wishes(output=output, jobs=jobs, score=score, levels=_levels(levels))
    start(comparison, wishes)


def _tune_by(text: str) -> "TuneBy":
    """`area` or `end`."""
    from treerl.errors import InputError, shorten

    if text == "area":
        return "area"
    if text == "end":
        return "end"
    raise InputError(f"--tune-by: expected area or end, got {shorten(text)}")


def _levels(text: str | None) -> tuple[float, ...] | None:
    """`.8,.9` as numbers."""
    from treerl.bench.variant import split
    from treerl.errors import InputError, shorten
    from treerl.registry import to_float

    if text is None:
        return None
    levels = []
    for part in split(text, "--levels"):
        level = to_float(part)
        if not isinstance(level, float):
            raise InputError(f"--levels: expected numbers between commas, got {shorten(part)}")
        levels.append(level)
    return tuple(levels)
