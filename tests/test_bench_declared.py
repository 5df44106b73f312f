"""What `treerl bench` compares: variants, budgets, and a sweep that tunes all alike."""

from dataclasses import replace
from pathlib import Path

import pytest

from treerl.bench.budget import Budget, cost, parse
from treerl.bench.cell import Cell, configured
from treerl.bench.declared import Declared
from treerl.bench.files import Point, Row
from treerl.bench.score import Score
from treerl.bench.sweep import Sweep, parse as parse_sweep
from treerl.bench.variant import Variant, split, variants
from treerl.config.algorithm import algorithm_of
from treerl.config.flags import Given
from treerl.errors import InputError
from treerl.run.files import Numbers, Summary
from treerl.run.plan import plan_of

GIVEN = Given(None, {}, ("train.prompts_per_iteration=2",), False)


def declared(recipes: str, sweep: Sweep | None = None, seeds: range = range(2)) -> Declared:
    return Declared(
        given=GIVEN,
        variants=variants([recipes]),
        budget=parse("forwards=2000"),
        marks=2,
        seeds=seeds,
        sweep=sweep,
        tuning_seeds=range(100, 101),
    )


def test_a_setting_belongs_to_the_recipe_before_it() -> None:
    text = "treegrpo,mixgrpo:tree.trees_per_prompt=9,train.learning_rate=4e-4,flowgrpo"
    parsed = variants([text])
    assert parsed == (
        Variant("treegrpo"),
        Variant("mixgrpo", ("tree.trees_per_prompt=9", "train.learning_rate=4e-4")),
        Variant("flowgrpo"),
    )
    assert ",".join(variant.label for variant in parsed) == text
    assert variants(["treegrpo", "flowgrpo"]) == variants(["treegrpo,flowgrpo"])


def test_commas_in_brackets_do_not_part() -> None:
    assert split("a,b=[1,2],c={x: 1, y: 2}", "x") == ["a", "b=[1,2]", "c={x: 1, y: 2}"]
    (mine,) = variants(["treegrpo:advantage.weighting=./mine.py:Mine,train.reduction=edges"])
    assert mine.settings == ("advantage.weighting=./mine.py:Mine", "train.reduction=edges")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.learning_rate=1,treegrpo", "--recipes: expected a recipe before its settings"),
        ("treegrpo,treegrpo", "--recipes: expected each recipe once, got treegrpo twice"),
        ("treegrpo,,flowgrpo", "--recipes: expected texts between commas"),
    ],
)
def test_recipes_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        variants([text])


@pytest.mark.parametrize(
    "text", ["forwards", "forwards=", "forwards=0", "seconds=-1", "rewards=inf"]
)
def test_a_budget_is_a_number_above_0(text: str) -> None:
    with pytest.raises(InputError, match=r"--budget: \w+: expected a number > 0"):
        parse(text)


def test_an_unknown_budget_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean forwards"):
        parse("forward=3")
    assert parse("forwards=4e4") == Budget("forwards", 40_000) == parse("forwards=40000")


@pytest.mark.parametrize("kind", ["forwards", "rewards"])
@pytest.mark.parametrize("recipe", ["treegrpo", "mixgrpo", "dancegrpo"])
def test_the_iterations_are_the_fewest_that_spend_the_budget(kind: str, recipe: str) -> None:
    budget = Budget(kind, 5000.0 if kind == "forwards" else 150.0)
    config = configured(GIVEN, Variant(recipe), (), 3, budget)
    plan = plan_of(config, algorithm_of(config))
    last = config.train.iterations
    assert last > 2
    assert cost(kind, plan.drawn(last - 1)) < budget.amount <= cost(kind, plan.drawn(last))


@pytest.mark.parametrize(("recipe", "other"), [("mixgrpo", 0), ("nft", 1)])
def test_forwards_count_an_update_three_times_and_other_weights_once(
    recipe: str, other: int
) -> None:
    config = configured(GIVEN, Variant(recipe), (), 0, Budget("forwards", 1.0))
    work = plan_of(config, algorithm_of(config)).drawn(1)
    assert work.reference_forwards == other * work.update_forwards
    cost_ = work.sampling_forwards + (3 + other) * work.update_forwards
    assert cost("forwards", work) == cost_ == 2 * (264 if other == 0 else 24 * 14)


def test_seconds_leave_the_iterations_as_they_are_set() -> None:
    budget = Budget("seconds", 5.0)
    for iterations in (7, 70):
        variant = Variant("treegrpo", (f"train.iterations={iterations}",))
        assert configured(GIVEN, variant, (), 0, budget).train.iterations == iterations


def test_a_budget_beyond_all_reason_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="treegrpo: --budget: forwards: expected at most"):
        configured(GIVEN, Variant("treegrpo"), (), 0, Budget("forwards", 1e12))


def test_later_wins_for_all_then_the_variant_then_the_sweep() -> None:
    given = Given(None, {}, ("train.learning_rate=1", "train.weight_decay=1"), False)
    variant = Variant("treegrpo", ("train.learning_rate=2", "train.lora_alpha=2"))
    config = configured(given, variant, ("train.learning_rate=3",), 7, Budget("rewards", 9.0))
    train = config.train
    assert (train.weight_decay, train.lora_alpha, train.learning_rate) == (1, 2, 3)
    assert (config.seed, config.recipe, config.output) == (7, "treegrpo", None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("tree.dept=3",), "treegrpo:tree.dept=3: --set: tree.dept: unknown key"),
        (("recipe=flowgrpo",), "recipe: expected none in the settings"),
    ],
)
def test_a_wrong_setting_names_its_variant(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        configured(GIVEN, Variant("treegrpo", settings), (), 0, Budget("seconds", 1.0))


def test_a_sweep_tries_each_value_with_each_other_one() -> None:
    sweep = parse_sweep(["train.learning_rate=1e-4,2e-4", "train.optimizer_steps=1,2,4"])
    assert sweep is not None
    tried = sweep.settings(Variant("treegrpo"))
    assert len(set(tried)) == 6
    assert tried[1] == ("train.learning_rate=1e-4", "train.optimizer_steps=2")
    assert parse_sweep([]) is None


LEAVES = """
all:
  train.learning_rate: [1e-4, 2e-4]
treegrpo:
  leaves:
    - {tree.branching.branching_factor: 2, tree.branching.depth: 2}
    - {tree.branching.branching_factor: 3, tree.branching.depth: 3}
mixgrpo:
  tree.trees_per_prompt: [4, 27]
"""


def test_a_sweep_file_gives_each_recipe_its_axes(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(LEAVES, encoding="utf-8")
    comparison = declared("treegrpo,mixgrpo", parse_sweep([str(file)]))
    cells = comparison.tuning()
    assert [cell.seed for cell in cells] == [100] * 8
    trees = [cell.config.tree for cell in cells if cell.variant.recipe == "treegrpo"]
    shapes = {(t.branching.params["branching_factor"], t.branching.params["depth"]) for t in trees}
    assert shapes == {(2, 2), (3, 3)}
    chains = [cell.config.tree for cell in cells if cell.variant.recipe == "mixgrpo"]
    assert {tree.trees_per_prompt for tree in chains} == {4, 27}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            LEAVES.replace("[4, 27]", "[4, 9, 27]"),
            "expected as many settings for every recipe, got 4 for treegrpo, 6 for mixgrpo",
        ),
        (LEAVES.replace("mixgrpo", "mixgrop"), "mixgrop: no recipe of --recipes; did you mean"),
        (LEAVES.replace("[4, 27]", "4"), "mixgrpo.tree.trees_per_prompt: expected a list"),
        ("all: 3", "all: expected axes with their values, got 3"),
    ],
    ids=["unequal", "unknown", "no list", "no axes"],
)
def test_a_sweep_that_is_not_the_same_for_all_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        declared("treegrpo,mixgrpo", parse_sweep([str(file)]))


def test_seeds_of_the_sweep_are_not_those_of_the_comparison() -> None:
    sweep = parse_sweep(["train.learning_rate=1e-4,2e-4"])
    assert declared("treegrpo", sweep, range(90, 100)).tuning()
    with pytest.raises(InputError, match="--seeds: expected seeds that the sweep does not use"):
        declared("treegrpo", sweep, range(90, 101))
    assert declared("treegrpo", None, range(90, 101)).tuning() == []


def row(cell: Cell, rewards: list[float], status: str = "done") -> Row:
    points = []
    for mark, reward in enumerate(rewards):
        heldout = Summary(reward=reward, samples=4)
        spent: Numbers = {"sampling_forwards": 1000 * mark}
        points.append(Point(mark=mark, iteration=mark, spent=spent, seconds=0, heldout=heldout))
    return Row(
        key=cell.key,
        phase=cell.phase,
        recipe=cell.variant.recipe,
        settings=list(cell.variant.settings),
        tried=list(cell.tried),
        seed=cell.seed,
        status="failed" if status == "failed" else "done",
        points=points,
        versions={},
    )


def test_the_largest_area_is_taken_and_one_that_failed_never() -> None:
    sweep = parse_sweep(["train.learning_rate=1e-4,2e-4,4e-4"])
    comparison = declared("treegrpo,mixgrpo", sweep)
    cells = comparison.tuning()
    curves = {  # the first point is before training, and is no merit
        ("treegrpo", 0): ([9.0, 0.1, 0.5], "done"),
        ("treegrpo", 1): ([0.0, 0.4, 0.4], "done"),
        ("treegrpo", 2): ([0.0, 0.9, 0.9], "failed"),
    }
    rows = {}
    for place, cell in enumerate(cells):
        curve, status = curves.get((cell.variant.recipe, place % 3), ([0.0], "failed"))
        rows[cell.key] = row(cell, curve, status)
    score = Score("reward", comparison.budget)
    chosen = comparison.choose(cells, rows, score)
    assert chosen == {Variant("treegrpo"): ("train.learning_rate=2e-4",)}
    compared = comparison.compared(chosen)
    assert [cell.seed for cell in compared] == [0, 1]
    assert {cell.config.train.learning_rate for cell in compared} == {2e-4}
    chosen = replace(comparison, tune_by="end").choose(cells, rows, score)
    assert chosen == {Variant("treegrpo"): ("train.learning_rate=1e-4",)}


def test_a_key_is_that_of_all_that_decides_the_figures() -> None:
    (first, second) = declared("treegrpo").compared({Variant("treegrpo"): ()})
    same, _ = declared("treegrpo").compared({Variant("treegrpo"): ()})
    (other, _) = declared("treegrpo").compared({Variant("treegrpo"): ("train.lora_rank=3",)})
    assert first.key == same.key
    assert len({first.key, second.key, other.key}) == 3
    assert replace(first, marks=3).key != first.key
