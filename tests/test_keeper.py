"""The keeper: what it saves and when, and what a run that is taken up still knows."""

import json
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ended_runs import figures, litter, run
from test_resume import inside as inside

from treerl.engine.objective import Loss
from treerl.engine.trainer import Trainer
from treerl.errors import InputError, StorageError
from treerl.run import checkpoints, record

SAME = """
import torch
from treerl import Reward

class Same(Reward):
    def __call__(self, samples):
        return torch.ones(len(samples))
"""


def manifest(folder: str) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(Path(folder, "manifest.json").read_text())
    return written


def kept(folder: str) -> list[int]:
    return [checkpoints.number(path) for path in checkpoints.everyone(Path(folder, "checkpoints"))]


def test_a_new_best_is_saved_where_no_checkpoint_is_due() -> None:
    sets = ("train.save_every=0", "evaluate.every=1", "train.keep_last=1", "train.keep_best=true")
    run(Path("run"), *sets, "train.iterations=5", "train.learning_rate=0", "train.trainable=full")
    # nothing moves: the first reward is the best, and none after it is better
    assert kept("run") == [1, 5]


def test_an_iteration_that_was_left_in_its_middle_is_not_saved_and_done_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets = (
        "train.prompts_per_iteration=2",
        "train.optimizer_steps=2",
        "train.save_every=0",
        "train.iterations=3",
    )
    run(Path("whole"), *sets)
    backward = Trainer._add_gradient
    done: list[int] = []

    def failing(self: Trainer, *batch: object) -> Loss:
        if self.iteration == 1 and self.halfway:
            raise StorageError("the disk is full")
        done.append(self.iteration)
        return backward(self, *batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_add_gradient", failing)
    with pytest.raises(StorageError):
        run(Path("parts"), *sets)
    assert 1 in done and kept("parts") == []
    monkeypatch.setattr(Trainer, "_add_gradient", backward)
    run(Path("parts"), *sets, resume="auto")
    assert figures(Path("parts")) == figures(Path("whole")) and litter(Path("parts")) == []


def test_seconds_go_on_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: Iterator[int] = count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    run(Path("whole"))
    run(Path("parts"), "train.iterations=3")
    run(Path("parts"), resume="auto")
    assert manifest("parts")["seconds"]["train"] == manifest("whole")["seconds"]["train"] > 0
    assert manifest("parts")["spent"]["seconds"] == manifest("whole")["spent"]["seconds"]


def test_the_guard_of_a_run_that_is_taken_up_knows_what_was_before() -> None:
    Path("same.py").write_text(SAME)
    sets = ("rewards={./same.py:Same: 1}", "train.iterations=6")
    run(Path("whole"), *sets)
    run(Path("parts"), *sets[:1], "train.iterations=3")
    run(Path("parts"), *sets, resume="auto")
    (alarm,) = manifest("whole")["alarms"]
    assert alarm.startswith("iteration 5: for 5 iterations every sample")
    assert figures(Path("parts")) == figures(Path("whole"))


@pytest.mark.parametrize("which", ["prompts.txt", "held.txt"])
def test_other_prompts_and_another_order_of_them_are_refused(which: str) -> None:
    Path("held.txt").write_text("a wolf\na bus\n")
    run(Path("run"), "data.heldout=held.txt", "train.iterations=1")
    lines = Path(which).read_text().splitlines()
    for others in ([*lines[:-1], "a cow"], lines[::-1]):
        Path(which).write_text("\n".join(others))
        with pytest.raises(InputError, match="expected the prompts that the run began with"):
            run(Path("run"), "train.iterations=2", resume="run")
    Path(which).write_text("\n".join(lines))
    run(Path("run"), "train.iterations=2", resume="run")
    assert manifest("run")["spent"]["iterations"] == 2


def test_a_checkpoint_that_the_disk_has_no_room_for_is_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(StorageError, match=r"needs [\d,]+ bytes, 1,000 bytes are free"):
        run(Path("run"))
    assert kept("run") == [] and litter(Path("run")) == []


def test_a_run_tells_when_it_began_when_it_went_on_and_what_was_another_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter(f"2026-01-01T00:00:{second:02d}Z" for second in range(60))
    for place in ("treerl.run.record.now", "treerl.run.start.now"):
        monkeypatch.setattr(place, lambda: next(times))
    run(Path("run"), "train.iterations=1")
    began = manifest("run")
    run(Path("run"), "train.iterations=2", resume="run")
    other = {"numpy": "0"}
    monkeypatch.setattr(record, "version", lambda name: other.get(name) or version(name))
    printed = run(Path("run"), "train.iterations=3", resume="run")
    assert f"numpy: {version('numpy')} -> 0: it may round otherwise" in printed
    ended = manifest("run")
    assert (ended["run"], ended["started"]) == (began["run"], began["started"])
    assert [entry["iteration"] for entry in ended["resumed"]] == [1, 2]
    assert list(ended["resumed"][1]["changed"]) == ["numpy"]


def test_a_run_takes_the_threads_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    run(Path("run"), "train.threads=3", "train.iterations=0")
    assert told == [3]
    run(Path("other"), "train.iterations=0")
    assert told == [3]
