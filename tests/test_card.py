"""The benchmark of one card runs, and its floor is the plan's counts times the primitives."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import treerl

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "card.py"
PHASES = ["encode", "trunk", "window", "tails", "score", "update", "optimizer", "rest"]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("card") / "card.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--prompts", "2", "--output", str(file)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "primitives, ms" in done.stdout and "27 leaves a prompt" in done.stdout
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read


@pytest.mark.slow
def test_a_quick_run_gives_every_section(figures: dict[str, Any]) -> None:
    machine = figures["machine"]
    assert machine["latent"] == [4, 8, 8] and machine["rows"] == 24 and machine["torch"]
    assert set(figures["primitives_ms"]) == {"eager", "one row"}
    for cost in figures["primitives_ms"].values():
        assert all(value > 0 for name, value in cost.items() if name != "fold"), cost
    seconds = figures["iteration"]["seconds"]
    assert set(seconds) == {"measured", "floor", "computed", "node_by_node"}
    for column in seconds.values():
        assert list(column) == [*PHASES, "all"]
        assert column["all"] == pytest.approx(sum(column[phase] for phase in PHASES))
    assert all(seconds["measured"][phase] > 0 for phase in ("window", "tails", "score", "update"))
    assert figures["peak_memory_gib"] == {}


@pytest.mark.slow
def test_the_work_is_what_the_plan_counts(figures: dict[str, Any]) -> None:
    counts = figures["iteration"]["counts"]
    settings = {"recipe": "treegrpo", "train.prompts_per_iteration": 2}
    session = treerl.assemble(settings=settings)
    planned = session.plan.drawn_in(1)
    session.close()
    assert counts["trunk"] + counts["window"] + counts["tails"] == planned.sampling_forwards
    assert counts["updates"] == planned.update_forwards == 2 * 13
    assert counts["decodes"] == planned.decodes and counts["reward_calls"] == planned.reward_calls
    assert counts["trunk_folds"] == counts["tail_folds"] == 0
    filled = figures["iteration"]["rows_computed"]
    for name in ("trunk", "window", "tails", "updates", "decodes"):
        assert filled[name] >= counts[name] and filled[name] % 24 == 0
    assert filled["trunk_folds"] == int(counts["trunk"] > 0) and filled["tail_folds"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "counted", "which"),
    [
        ("floor", "counts", "eager"),
        ("computed", "rows_computed", "eager"),
        ("node_by_node", "counts", "one row"),
    ],
)
def test_the_floor_is_the_counts_times_the_primitives(
    figures: dict[str, Any], column: str, counted: str, which: str
) -> None:
    counts = figures["iteration"][counted]
    cost = figures["primitives_ms"][which]
    expected = {
        "encode": counts["prompts"] * cost["encode"],
        "trunk": counts["trunk"] * cost["folded"] + counts["trunk_folds"] * cost["fold"],
        "window": counts["window"] * cost["window"],
        "tails": counts["tails"] * cost["folded"] + counts["tail_folds"] * cost["fold"],
        "score": counts["decodes"] * cost["decode"] + counts["reward_calls"] * cost["reward"],
        "update": counts["updates"] * cost["update"] + counts["references"] * cost["plain"],
        "optimizer": counts["optimizer_steps"] * cost["optimizer"],
        "rest": 0,
    }
    floor = figures["iteration"]["seconds"][column]
    for phase, spent in expected.items():
        assert floor[phase] == pytest.approx(spent / 1e3), phase


@pytest.mark.slow
def test_the_recipes_have_the_counts_of_27_leaves(figures: dict[str, Any]) -> None:
    rows = {row["recipe"]: row for row in figures["recipes"]}
    assert list(rows) == ["treegrpo", "dancegrpo", "mixgrpo", "ddpo"]
    assert rows["treegrpo"]["ratio"] == 1
    for row in rows.values():
        assert row["prompts"] == 2 and row["counts"]["decodes"] == 2 * 27
        assert row["how"] == "predicted from primitives"
    updates = {name: row["counts"]["updates"] / 2 for name, row in rows.items()}
    assert updates == {"treegrpo": 13, "dancegrpo": 135, "mixgrpo": 108, "ddpo": 243}
    tree = rows["treegrpo"]["counts"]
    assert (tree["trunk"], tree["window"], tree["tails"]) == (2, 26, 324)
