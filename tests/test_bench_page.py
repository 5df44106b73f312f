"""The tables and the page of a comparison: every cell is told, failures too, text stays text."""

import csv
import html
import io
import re

import pytest

from treerl.bench import page, standing, table
from treerl.bench.budget import Budget
from treerl.bench.cell import Cell, Phase, configured
from treerl.bench.files import Declaration, Point, Row
from treerl.bench.folder import table as csv_of
from treerl.bench.plots import front
from treerl.bench.result import Result, result_of
from treerl.bench.score import Score, at_marks, choose
from treerl.bench.variant import Variant
from treerl.config.flags import Given
from treerl.errors import InputError
from treerl.run.files import Summary

ATTACK = "\"'><script>alert(1)</script>\u202e{{ 7 * 191 }}"
BUDGET = Budget("forwards", 400.0)
FIRST = Variant("treegrpo")
SECOND = Variant("mixgrpo", ("tree.trees_per_prompt=4",))
TRIED = (("train.learning_rate=1e-4",), ("train.learning_rate=2e-4",))


def cell(phase: Phase, variant: Variant, tried: tuple[str, ...], seed: int) -> Cell:
    config = configured(Given(None, {}, (), False), variant, tried, seed, BUDGET)
    return Cell(phase, variant, tried, seed, config, BUDGET, 2)


def row(cell: Cell, right: list[float | None], error: str | None = None) -> Row:
    points = []
    for mark, value in enumerate(right):
        heldout = Summary(
            reward=None if value is None else value - 0.1,
            measures={"right": value},
            watched={"clip": 0.25},
            quality={"diversity": 0.1 + cell.seed / 100},
            samples=8,
        )
        spent: dict[str, int | float | None] = {
            "sampling_forwards": 80 * mark,
            "update_forwards": 40 * mark,
        }  # 200 a mark
        points.append(
            Point(mark=mark, iteration=mark, spent=spent, seconds=3.0 * mark, heldout=heldout)
        )
    return Row(
        key=cell.key,
        phase=cell.phase,
        recipe=cell.variant.recipe,
        settings=list(cell.variant.settings),
        tried=list(cell.tried),
        seed=cell.seed,
        status="done" if error is None else "failed",
        error=error,
        code=0 if error is None else 3,
        points=points,
        versions={"torch": "1"},
    )


def declaration(score: str | None = None, levels: list[float] | None = None) -> Declaration:
    return Declaration(
        started="2026-01-01T00:00:00Z",
        command=["treerl", "bench", ATTACK],
        model="sd35 (tiny)",
        rewards=["1 × shapes"],
        recipes=[FIRST.label, SECOND.label],
        budget=BUDGET.text,
        marks=2,
        seeds=[0, 1, 2],
        sweep={},
        tuning_seeds=[100],
        score=score,
        levels=levels,
        device="cpu",
        versions={"torch": "1"},
    )


@pytest.fixture(scope="module")
def result() -> Result:
    """Two recipes, three seeds, of which one failed; a sweep of two settings each."""
    chosen = {FIRST: TRIED[1], SECOND: TRIED[0]}
    cells = [cell("sweep", v, tried, 100) for v in (FIRST, SECOND) for tried in TRIED]
    rows = [row(c, [0.5, 0.6, 0.7]) for c in cells]
    curves: dict[tuple[Variant, int], list[float | None]] = {
        (FIRST, 0): [0.5, 0.7, 0.9],
        (FIRST, 1): [0.5, 0.7, 0.8],
        (FIRST, 2): [0.5, 0.5, 0.7],
        (SECOND, 0): [0.5, 0.8, 1.0],
        (SECOND, 1): [0.5, 0.9, 0.9],
        (SECOND, 2): [0.5],
    }
    for (variant, seed), curve in curves.items():
        compared = cell("compare", variant, chosen[variant], seed)
        error = None if len(curve) == 3 else f"a latent is not finite {ATTACK}"
        cells.append(compared)
        rows.append(row(compared, curve, error))
    table_of = {r.key: r for r in rows}
    found = result_of(declaration(), cells, len(cells), table_of, chosen)
    assert found is not None
    return found


def test_estimates_are_those_of_the_seeds_that_did_not_fail(result: Result) -> None:
    first, second = result.standings
    assert first.area is not None and second.area is not None
    assert first.area.value == pytest.approx((0.8 + 0.75 + 0.6) / 3)
    assert second.area.value == pytest.approx(0.9)
    assert second.ends["measures.right"].value == pytest.approx(0.95)
    assert (second.failed, len(second.done), second.seeds) == (1, 2, 3)
    assert table.seeds(second) == "2 of 3, 1 failed"
    assert [e.value for e in first.curves["reward"]] == pytest.approx([0.4, 0.5333333, 0.7])


def test_differences_are_paired_by_seed(result: Result) -> None:
    first, second = result.standings
    gap = standing.gap(second, first, result.score)
    assert gap.area is not None and gap.end is not None
    assert gap.area.runs == 2  # seed 2 of the second failed
    assert gap.area.value == pytest.approx((0.1 + 0.15) / 2)
    assert gap.end.value == pytest.approx(0.1)


def test_costs_to_reach_say_how_many_seeds_did(result: Result) -> None:
    first, second = result.standings
    at = {reached.level: reached for reached in first.reached}
    assert (at[0.9].count, at[0.9].out_of) == (1, 3)
    assert at[0.9].cost is not None and at[0.9].cost.value == 400
    assert (at[0.95].count, at[0.95].cost) == (0, None)
    assert table.cost(at[0.9], "forwards") == "400, 6 s (1 of 3)"
    assert table.cost(at[0.95], "forwards") == "– (0 of 3)"
    # .5 -> .8 over 200 forwards: seed 0 reaches .8 at 200, seed 1 at 150; seed 2 failed before
    early = second.reached[0]
    assert (early.count, early.out_of) == (2, 3)
    assert early.cost is not None and early.cost.value == pytest.approx(175)


def test_the_terminal_has_the_best_first_and_the_failure(result: Result) -> None:
    lines = table.markdown(result).splitlines()
    assert lines[0].startswith("| recipe | seeds | right | area | less | reward | clip | diversity")
    assert lines[2].startswith(
        "| `mixgrpo:tree.trees_per_prompt=4,train.learning_rate=1e-4` | 2 of"
    )
    assert lines[3].startswith("| `treegrpo:train.learning_rate=2e-4` | 3 |")
    assert {line.count("|") for line in lines[:4]} == {lines[0].count("|")}


def test_the_csv_has_a_line_for_each_cell_and_mark(result: Result) -> None:
    lines = list(csv.DictReader(io.StringIO(csv_of(result.rows))))
    assert len(lines) == 4 * 3 + 5 * 3 + 1
    last = lines[-1]
    assert (last["recipe"], last["seed"], last["status"], last["mark"]) == (
        "mixgrpo",
        "2",
        "failed",
        "0",
    )
    assert lines[2]["measures.right"] == "0.7"
    assert lines[2]["sampling_forwards"] == "160"
    assert lines[0]["settings"] == "train.learning_rate=1e-4"


def test_the_page_tells_every_cell_and_what_to_mind(result: Result) -> None:
    rendered = page.render(result)
    text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", rendered)))
    assert "bench sd35 (tiny) · reward shapes · forwards=400 · 3 seeds" in text
    assert "1 of 3 seeds failed; its figures are those of the others, which flatters it" in text
    assert "3 seeds: such an interval is a rough guess" in text
    assert "after 2 tuning settings on 1 other seed" in text
    assert text.count("taken") >= 3  # two cells of the sweep, and the sentence
    assert rendered.count("<tr><th>") >= 2 + 2 + 1 + 4 + 10
    assert "mixgrpo 0.900" in text
    assert "Without a change: clip" in text
    for heading in ("Learning curves", "Cost to reach", "Paired differences", "All cells"):
        assert f"<h2>{heading}</h2>" in rendered


def test_what_comes_from_outside_stays_text(result: Result) -> None:
    rendered = page.render(result)
    assert "<script" not in rendered
    assert "\u202e" not in rendered
    assert "1337" not in rendered


def test_another_figure_may_be_compared(result: Result) -> None:
    rows = result.rows
    score = choose(rows, BUDGET, "clip", (0.2,))
    assert score is not None and (score.name, score.levels) == ("watched.clip", (0.2,))
    score = choose(rows, BUDGET, None, None)
    assert score is not None and (score.name, score.levels) == ("measures.right", (0.8, 0.9, 0.95))
    with pytest.raises(InputError, match="--score: no held-out figure rigth"):
        choose(rows, BUDGET, "rigth", None)
    assert choose([], BUDGET, None, None) is None


def test_nothing_to_tell_is_no_result() -> None:
    compared = cell("compare", FIRST, (), 0)
    assert result_of(declaration(), [compared], 1, {}, {}) is None


def test_the_front_holds_what_nothing_beats() -> None:
    assert front([(1, 1), (2, 2), (3, 0), (0, 3), (2, 2)]) == [False, True, True, True, True]


def points(spent: list[float], right: list[float | None], iterations: list[int]) -> Row:
    """A cell that was judged when it had spent so much."""
    made = row(cell("compare", FIRST, (), 0), right)
    placed = []
    for point, forwards, iteration in zip(made.points, spent, iterations, strict=True):
        update = {"spent": {"sampling_forwards": forwards}, "iteration": iteration}
        placed.append(point.model_copy(update=update))
    return made.model_copy(update={"points": placed})


def test_whoever_spent_more_than_the_budget_is_told_by_what_it_had_at_it() -> None:
    score = Score("measures.right", BUDGET)
    larger = points([0, 300, 600], [0.0, 0.3, 0.6], [0, 1, 2])
    exact = points([0, 200, 400], [0.0, 0.2, 0.4], [0, 1, 2])
    both = points([0, 800, 800], [0.0, 0.8, 0.8], [0, 1, 1])  # one iteration passes both marks
    for judged in (larger, exact, both):
        assert at_marks(judged, score.name, BUDGET) == pytest.approx([0, 0.2, 0.4])
        assert score.end(judged) == pytest.approx(0.4)
        assert score.area(judged) == pytest.approx(0.3)


def test_a_level_that_is_reached_beyond_the_budget_is_not_reached() -> None:
    larger = points([0, 300, 600], [0.0, 0.3, 0.6], [0, 1, 2])
    score = Score("measures.right", BUDGET)
    assert score.reached(larger, 0.35) == pytest.approx((350, 3.5))
    assert score.reached(larger, 0.45) is None


def test_a_figure_that_is_not_finite_is_none_of_an_estimate() -> None:
    assert at_marks(points([0, 200, 400], [0.1, None, 0.2], [0, 1, 2]), "reward", BUDGET) is None
