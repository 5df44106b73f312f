"""The command line as scripts use it: help, lists, plans, exit codes; an error imports little."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from treerl.cli import main
from treerl.config.algorithm import algorithm_of
from treerl.config.resolve import resolve
from treerl.engine.recipes import recipes
from treerl.registry import CONTRACTS
from treerl.run.plan import plan_of


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def answer(words: Sequence[str], code: int) -> tuple[str, str]:
    """What the command line prints, in this process, to its two streams."""
    out = io.StringIO()
    err = io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(words))
    assert (ended.value.code or 0) == code, out.getvalue() + err.getvalue()
    return out.getvalue(), err.getvalue()


def treerl(*words: str, code: int = 0) -> str:
    out, err = answer(words, code)
    return err if code else out


def plan(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(treerl("plan", "--json", *words))
    return found


def test_help_names_every_command_and_no_other() -> None:
    text = treerl("--help")
    assert all(
        f" {name} " in text
        for name in ("run", "plan", "bench", "list", "check", "export", "serve-reward", "show")
    )
    assert " eval " not in text


def test_lists_hold_what_is_announced() -> None:
    found = json.loads(treerl("list", "--json"))
    assert set(found) == {*CONTRACTS, "recipes"}
    assert {name: recipe.source for name, recipe in recipes.items()} == found["recipes"]
    assert {"geometric", "shift", "uniform", "fixed"} < set(found["branchings"])
    assert json.loads(treerl("list", "rewards", "--json")) == {"rewards": found["rewards"]}
    assert "shapes" in treerl("list", "rewards")


def test_a_list_of_one_kind_tells_the_parameters() -> None:
    lines = treerl("list", "branchings").splitlines()
    assert "    depth: an integer >= 1 and <= 999 or 'all'; 3" in lines
    assert "    ratio: a number > 0 and < 1; 0.5" in lines


def test_an_unknown_list_names_the_nearest() -> None:
    assert "did you mean rewards?" in treerl("list", "reward", code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "tree.brnch=2"), "did you mean tree.branching?"),
        (("--recipe", "tregrpo"), "did you mean treegrpo?"),
        (("--reward", "shapes=nan"), "rewards.shapes"),
        (("--config", "absent.yaml"), "absent.yaml"),
        (("--prompts", "absent.txt"), "absent.txt"),
        (("--resume", "absent"), "--resume: absent: expected a run folder"),
        (("--resume", "absent", "--output", "here"), "--output: expected none"),
        (("--resume", "auto"), "expected --output DIR with it"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    lines = treerl("run", *words, code=2).splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_the_plan_of_the_paper_counts_as_the_paper() -> None:
    found = plan("--recipe", "treegrpo")["per_prompt"]
    starts = [row["sampling_forwards"] for row in found["by_start"]]
    assert starts == [202, 176, 150, 124, 98, 72, 46]
    assert found["sampling_forwards"] == pytest.approx(177.4, abs=0.05)
    assert (found["leaves"], found["update_forwards"], found["edges"]) == (27, 13, 39)


def test_the_plan_without_a_recipe_is_that_of_treerl() -> None:
    found = plan()["per_prompt"]
    assert found == plan("--recipe", "treerl")["per_prompt"]
    assert (found["sampling_forwards"], found["update_forwards"], found["leaves"]) == (32, 7, 16)


def test_the_plan_of_the_authors_code_counts_as_it_ran() -> None:
    found = plan("--recipe", "treegrpo-code", "--set", "train.iterations=300")["per_prompt"]
    assert [row["sampling_forwards"] for row in found["by_start"]] == [111, 96, 81, 66, 51, 36]
    assert found["sampling_forwards"] == pytest.approx(73.5)
    assert (found["leaves"], found["update_forwards"], found["edges"]) == (16, 15, 30)


@pytest.mark.parametrize(
    ("recipe", "updates"), [("flowgrpo", 243), ("dancegrpo", 135), ("mixgrpo", 108)]
)
def test_the_plans_of_chains_count_as_their_papers_at_27_leaves(recipe: str, updates: int) -> None:
    found = plan("--recipe", recipe, "--set", "tree.trees_per_prompt=27")["per_prompt"]
    assert (found["sampling_forwards"], found["update_forwards"], found["leaves"]) == (
        270,
        updates,
        27,
    )


def test_the_plan_for_people_names_the_same_numbers() -> None:
    text = treerl("plan", "--recipe", "treegrpo")
    assert "177.4" in text and "window from step 6: 46 sampling forwards" in text


def test_every_pass_takes_each_prompt_once() -> None:
    config = resolve(None, {}, ["train.prompts_per_iteration=7"])
    made = plan_of(config, algorithm_of(config))
    taken = [pair for iteration in range(50) for pair in made.rows(iteration, 35)]
    passes = [[row for turn, row in taken if turn == number] for number in range(10)]
    assert all(sorted(rows) == list(range(35)) for rows in passes)
    assert passes[0] != passes[1]


# of a thousand steps the last have hardly any noise
_DENSE = ("--set", "tree.branching.depth=1", "--set", "kernel.noise_level=1.4")


@pytest.mark.parametrize(
    "change",
    [
        ("--recipe", "mixgrpo"),
        pytest.param(
            ("--recipe", "treegrpo", "--set", "env.steps=1000", *_DENSE), marks=pytest.mark.slow
        ),
        ("--recipe", "flowgrpo", "--set", "tree.branching=shift"),
    ],
)
def test_the_plan_of_the_longest_run_is_quick(change: tuple[str, ...]) -> None:
    began = time.monotonic()
    plan(*change, "--set", "train.iterations=1000000")
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompts", "empty.txt"), "empty.txt: expected at least one prompt"),
        (("--prompts", "wide.txt"), "wide.txt:1: byte 0: expected UTF-8, got UTF-16"),
        (("--prompts", "."), "expected a file named"),
        (("--reward", "jpeg", "--set", "rewards.jpeg.version=2"), "rewards.jpeg.version: unknown"),
        (("--watch", "./none.py:Mine", "--allow-plugins"), "none.py: no such file"),
        (("--set", "kernel=./none.py:Mine", "--allow-plugins"), "no such plug-in file"),
        (("--set", "train.iterations=1000000000"), "train.iterations: expected an integer"),
        (("--set", "evaluate.samples_per_prompt=1000000000"), "expected an integer"),
    ],
)
def test_the_plan_refuses_what_the_run_refuses(
    command: str, words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "wide.txt").write_bytes("a cat".encode("utf-16"))
    lines = treerl(command, *words, code=2).splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "wide.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [("plan",), ("list",), ("--version",)])
def test_nothing_but_the_answer_is_printed(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "treerl", *words], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_the_packages() -> None:
    assert treerl("--version") == f"treerl {version('treerl')}\n"


HEAVY = {"torch", "diffusers", "transformers", "numpy", "PIL", "gymnasium", "jinja2"}
SETTINGS = {"pydantic", "yaml", "treerl.config.schema"}
RUNNING = {"treerl.run.assemble", "treerl.run.session", "treerl.engine.trainer", "treerl.report"}


@pytest.mark.parametrize(
    ("words", "needless"),
    [
        (["--help"], HEAVY | SETTINGS),
        (["--version"], HEAVY | SETTINGS),
        (["bench", "--help"], HEAVY),
        (["list"], HEAVY | {"treerl.config.schema"}),
        (["list", "recipes", "--json"], HEAVY | {"treerl.config.schema"}),
        (["plan", "--set", "tree.brnch=1"], HEAVY),
        pytest.param(["plan"], {"gymnasium"} | RUNNING, marks=pytest.mark.slow),
    ],
    ids=["help", "version", "help of bench", "list", "list recipes", "mistake", "plan"],
)
def test_nothing_is_imported_that_the_answer_does_not_need(
    words: list[str], needless: set[str]
) -> None:
    code = (
        "import sys, treerl.cli\n"
        f"try: treerl.cli.main({words})\n"
        "except SystemExit: pass\n"
        f"came = {needless} & set(sys.modules)\n"
        "sys.exit(f'imported {came}' if came else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
