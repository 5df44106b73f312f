"""`treerl bench` from end to end: the same figures however it is cut into pieces and processes."""

import csv
import io
import itertools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from treerl.bench import comparison, crew
from treerl.bench.budget import Budget
from treerl.bench.cell import configured
from treerl.bench.crew import Reply, Task
from treerl.bench.variant import Variant
from treerl.bench.worker import answer
from treerl.cli import main
from treerl.config.flags import Given
from treerl.config.resolve import dump, resolve

SETS = (
    "backbone.name=sd35",
    "backbone.model=miniature",
    "rewards={jpeg: 1.0}",
    "train.prompts_per_iteration=1",
    "env.steps=4",
    "env.guidance=1",
    "evaluate.steps=4",
    "train.micro_batch_size=4",
    "tree.branching.depth=1",
    "tree.branching.branching_factor=2",
    "train.optimizer_steps=1",
    "evaluate.max_prompts=1",
    "evaluate.samples_per_prompt=2",
)
GIVEN = Given(None, {}, SETS, False)
WORDS = ["bench", "--recipes", "treegrpo,mixgrpo:tree.trees_per_prompt=2", "--seeds", "1"]
WORDS += ["--budget", "forwards=30", "--marks", "2", "--sweep", "train.learning_rate=1e-3,1e-2"]
WORDS += ["--jobs", "1", *(word for text in SETS for word in ("--set", text))]


def rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "cells.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def figures(folder: Path) -> list[dict[str, str]]:
    """cells.csv without what a clock says."""
    with (folder / "cells.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        del line["seconds"]
    return lines


def here(
    tasks: Sequence[Task],
    environments: Sequence[Mapping[str, str]],
    check_interrupt: Callable[[], None],
) -> Iterator[tuple[int, Reply]]:
    """What a worker answers, in this process."""
    assert len(environments) == 1
    for place, task in enumerate(tasks):
        check_interrupt()
        yield place, answer(task, check_interrupt)


def compare(folder: Path, code: int = 0) -> str:
    """`treerl bench` in this process; what it printed."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out), pytest.raises(SystemExit) as ended:
        main([*WORDS, "--output", str(folder)])
    assert (ended.value.code or 0) == code, out.getvalue()
    return out.getvalue()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "work", here)


def _alone(folder: Path) -> None:
    """The command in a process of its own, which trains the cells itself."""
    pytest.MonkeyPatch().setattr(comparison, "work", here)
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    with redirect_stdout(io.StringIO()):
        main([*WORDS, "--output", str(folder)])


def kill_after(folder: Path, count: int) -> None:
    """Begin a comparison, and kill it once so many cells have ended."""
    process = multiprocessing.get_context("forkserver").Process(target=_alone, args=(folder,))
    process.start()
    try:
        while len(rows(folder)) < count:
            assert process.is_alive()
            time.sleep(0.02)
    finally:
        process.kill()
        process.join()


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_comparison_that_was_killed_ends_with_the_same_figures(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    pieces = tmp_path / "pieces"
    compare(whole)
    kill_after(pieces, 2)
    kept = rows(pieces)
    assert 2 <= len(kept) < 6
    with (pieces / "cells.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"key": "torn')  # as a kill in the middle of a write would leave it
    said = compare(pieces)
    assert rows(pieces)[: len(kept)] == kept, "a cell was trained twice"
    assert len(rows(pieces)) == 6
    assert figures(pieces) == figures(whole)
    assert len(figures(whole)) == 6 * 3
    assert not list(pieces.glob(".draft*"))
    assert all(f"| `{name}" in said for name in ("treegrpo", "mixgrpo"))
    assert "6 of 6 cells" in (pieces / "report.html").read_text(encoding="utf-8")


def test_a_signal_keeps_what_is_done_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Iterator[tuple[int, Reply]]:
        yield from itertools.islice(here(*arguments), 1)
        os.kill(os.getpid(), signal.SIGINT)
        arguments[-1]()

    monkeypatch.setattr(comparison, "work", interrupted)
    said = compare(tmp_path / "bench", code=130)
    assert "stopped: 1 of 6 cells are kept; go on with" in said
    assert f"--output {tmp_path / 'bench'}" in said
    assert len(rows(tmp_path / "bench")) == 1
    report = (tmp_path / "bench" / "report.html").read_text(encoding="utf-8")
    assert "5 of 6 cells have not been trained" in report


@pytest.mark.usefixtures("in_this_process")
def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert "expected a new folder, or one of treerl bench" in compare(tmp_path, code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def task(tmp_path: Path, budget: str, *settings: str) -> Task:
    """A cell as a worker reads it."""
    kind, _, amount = budget.partition("=")
    variant = Variant("treegrpo", settings)
    config = configured(GIVEN, variant, (), 3, Budget(kind, float(amount)))
    file = tmp_path / "cell.yaml"
    file.write_text(dump(config), encoding="utf-8")
    return {"config": str(file), "budget": budget, "marks": 3, "allow_plugins": False}


def cell(tmp_path: Path, budget: str, *settings: str) -> Reply:
    """What a worker answers, in this process."""
    return answer(task(tmp_path, budget, *settings))


@pytest.mark.parametrize("budget", ["forwards=30", "rewards=5", "seconds=0.1"])
def test_a_cell_is_judged_before_and_at_every_mark(budget: str, tmp_path: Path) -> None:
    reply = cell(tmp_path, budget)
    assert "error" not in reply
    points = reply["points"]
    assert [point["mark"] for point in points] == [0, 1, 2, 3]
    kind, _, amount = budget.partition("=")
    for point in points:
        work = {name: point["spent"].get(name, 0) for name in ("sampling_forwards", "reward_calls")}
        forwards = work["sampling_forwards"] + 3 * point["spent"].get("update_forwards", 0)
        spent = {"forwards": forwards, "rewards": work["reward_calls"]}
        reached = spent.get(kind, point["seconds"])
        assert reached >= float(amount) * point["mark"] / 3 - 1e-3
        assert point["heldout"]["samples"] == 2
    assert points[0]["iteration"] == 0 == points[0]["seconds"]


def test_a_cell_ends_with_the_iteration_that_spends_its_budget(tmp_path: Path) -> None:
    reply = cell(tmp_path, "rewards=7")
    assert [point["iteration"] for point in reply["points"]] == [0, 2, 3, 4]  # 2 calls each
    told = resolve(tmp_path / "cell.yaml", {}, [])
    assert told.train.iterations == 4  # by which a rate decays
    (one,) = {point["iteration"] for point in cell(tmp_path, "rewards=2")["points"][1:]}
    assert one == 1  # one iteration passes all marks, which share its evaluation


@pytest.mark.slow
def test_the_same_cell_has_the_same_figures_in_every_process(tmp_path: Path) -> None:
    other = cell(tmp_path, "rewards=6")
    asked = task(tmp_path, "rewards=8")
    here_and_there = [answer(asked), answer(asked)]
    for _, reply in crew.work([asked], [{"OMP_NUM_THREADS": "1"}], lambda: None):
        here_and_there.append(reply)
    for reply in (other, *here_and_there):
        for point in reply["points"]:
            del point["seconds"]
    first, again, there = here_and_there
    assert first == again == there != other


def test_a_cell_whose_numbers_break_says_so_and_keeps_what_it_had(tmp_path: Path) -> None:
    reply = cell(tmp_path, "rewards=90", "train.learning_rate=1e38", "train.max_grad_norm=1e30")
    assert reply["code"] == 3
    assert "finite" in reply["error"]
    assert reply["points"][0]["mark"] == 0
