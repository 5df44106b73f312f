"""The command line as scripts use it: help, lists, plans, exit codes; nothing heavy is imported for an error."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from treerl.config.resolve import resolve
from treerl.engine.branching import Fixed, Geometric, Shift, Uniform
from treerl.registry import CONTRACTS
from treerl.run.plan import Plan


def treerl(*words: str, code: int = 0, folder: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "treerl", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code else done.stdout


def plan(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(treerl("plan", "--json", *words))
    return found


def test_help_names_every_command_and_no_other() -> None:
    text = treerl("--help")
    assert all(
        f" {name} " in text for name in ("run", "plan", "list", "check", "export", "serve-reward")
    )
    assert not any(f" {name} " in text for name in ("eval", "show", "bench"))


def test_lists_hold_what_is_announced() -> None:
    found = json.loads(treerl("list", "--json"))
    assert set(found) == {*CONTRACTS, "recipes"}
    assert {"treegrpo", "treegrpo-code", "flowgrpo", "dancegrpo", "mixgrpo"} == set(
        found["recipes"]
    )
    assert set(found["branchings"]) == {"geometric", "shift", "uniform", "fixed"}
    assert json.loads(treerl("list", "rewards", "--json")) == {"rewards": found["rewards"]}
    assert "shapes" in treerl("list", "rewards")


def test_an_unknown_list_names_the_nearest() -> None:
    assert "did you mean rewards?" in treerl("list", "reward", code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "tree.brnch=2"), "did you mean tree.branch?"),
        (("--recipe", "tregrpo"), "did you mean treegrpo?"),
        (("--reward", "shapes=nan"), "rewards.shapes"),
        (("--config", "absent.yaml"), "absent.yaml"),
        (("--prompts", "absent.txt"), "absent.txt"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    lines = treerl("run", *words, code=2, folder=tmp_path).splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_the_plan_of_the_paper_counts_as_the_paper() -> None:
    found = plan()["per_prompt"]
    starts = [row["sampling_forwards"] for row in found["by_start"]]
    assert starts == [202, 176, 150, 124, 98, 72, 46]
    assert found["sampling_forwards"] == pytest.approx(177.4, abs=0.05)
    assert (found["leaves"], found["update_forwards"], found["edges"]) == (27, 13, 39)


def test_the_plan_of_the_authors_code_counts_as_it_ran() -> None:
    found = plan("--recipe", "treegrpo-code", "--set", "train.iterations=300")["per_prompt"]
    assert [row["sampling_forwards"] for row in found["by_start"]] == [111, 96, 81, 66, 51, 36]
    assert found["sampling_forwards"] == pytest.approx(73.5)
    assert (found["leaves"], found["update_forwards"], found["edges"]) == (16, 15, 30)


@pytest.mark.parametrize(
    ("recipe", "updates"), [("flowgrpo", 243), ("dancegrpo", 135), ("mixgrpo", 108)]
)
def test_the_plans_of_chains_count_as_their_papers_at_27_leaves(recipe: str, updates: int) -> None:
    found = plan("--recipe", recipe, "--set", "tree.roots=27")["per_prompt"]
    assert (found["sampling_forwards"], found["update_forwards"], found["leaves"]) == (
        270,
        updates,
        27,
    )


def test_the_plan_for_people_names_the_same_numbers() -> None:
    text = treerl("plan")
    assert "177.4" in text and "window from step 6: 46 sampling forwards" in text


def test_the_windows_draw_follows_its_law() -> None:
    made = Plan(resolve(None, {}, []))
    starts = [made.shape(iteration).start for iteration in range(4000)]
    for probability, shape in made.law(0):
        seen = starts.count(shape.start) / len(starts)
        assert abs(seen - probability) < 4 * (probability / len(starts)) ** 0.5


def test_every_pass_takes_each_prompt_once() -> None:
    made = Plan(resolve(None, {}, ["train.prompts=7"]))
    taken = [pair for iteration in range(50) for pair in made.rows(iteration, 35)]
    for turn in range(10):
        assert sorted(row for one, row in taken if one == turn) == list(range(35))
    assert [row for turn, row in taken if turn == 0] != [row for turn, row in taken if turn == 1]


def test_the_published_laws_of_windows() -> None:
    geometric = [probability for probability, _ in Geometric(3, 3, 0.5).law(10, 0)]
    assert geometric == pytest.approx([0.5**s * 0.5 / (1 - 0.5**7) for s in range(7)])
    assert [round(one, 4) for one in geometric[:3]] == [0.5039, 0.252, 0.126]
    assert [probability for probability, _ in Uniform(3, 3).law(10, 5)] == pytest.approx(
        [1 / 7] * 7
    )
    assert [Shift(2, 4, 50).law(10, i)[0][1].start for i in (0, 49, 50, 299, 300)] == [
        0,
        0,
        1,
        5,
        0,
    ]
    assert Fixed().law(10, 3)[0][1].stochastic == (True,) * 9 + (False,)
