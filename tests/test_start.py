"""A run is one process with a folder of its own, and leaves weights on the way."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from treerl.config.resolve import resolve
from treerl.errors import InputError, NumericsError, StorageError
from treerl.report import page
from treerl.run.keeper import Keeper
from treerl.run.progress import Progress
from treerl.run.run import Listener, Run
from treerl.run.start import start

_SMALL = {
    "backbone.model": "miniature",
    "backbone.name": "sd35",
    "rewards": {"jpeg": 1.0},
    "train.prompts_per_iteration": 1,
    "env.steps": 4,
    "tree.branching.depth": 1,
    "tree.branching.branching_factor": 2,
    "train.optimizer_steps": 1,
    "evaluate.max_prompts": 1,
}
_CONSTANT = """
import torch
from treerl import Reward

class Same(Reward):
    def __call__(self, samples):
        return torch.ones(len(samples))
"""


def run(folder: Path, *sets: str, allow_plugins: bool = False) -> Path:
    config = resolve(None, {**_SMALL, "output": str(folder)}, sets, allow_plugins)
    path = start(config, Console(file=io.StringIO()), page.write)
    assert path is not None
    return path


@pytest.mark.parametrize("world", ["2", "8", " 4 ", "x", "0"])
def test_a_launcher_that_says_half_is_refused(
    world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(InputError, match="WORLD_SIZE"):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_tasks_that_do_not_know_of_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv(name, "4")
    with pytest.raises(InputError, match=rf"{name}.*torchrun"):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rank_beyond_the_world_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "5",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="RANK: expected a number below WORLD_SIZE = 2, got 5"):
        run(tmp_path / "run")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1e3", "1000000000", "9" * 5000])
def test_an_absurd_number_of_processes_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(InputError, match="WORLD_SIZE: expected a whole number up to 65536") as said:
        run(tmp_path / "run")
    assert len(str(said.value)) < 200


def test_weights_are_kept_on_the_way_and_only_the_last_two(tmp_path: Path) -> None:
    run(tmp_path / "run", "train.iterations=3", "train.save_every=2")
    names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sorted(names) == ["iteration-000002", "iteration-000003"]


def test_a_constant_reward_ends_a_guarded_run_with_its_folder_kept(tmp_path: Path) -> None:
    plugin = tmp_path / "same.py"
    plugin.write_text(_CONSTANT)
    folder = tmp_path / "run"
    sets = [f"rewards={{{plugin}:Same: 1}}", "train.iterations=9", "train.guard=stop"]
    with pytest.raises(NumericsError, match="nothing is learned"):
        run(folder, *sets, allow_plugins=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "failed" and manifest["spent"]["iterations"] == 5
    (kept,) = manifest["plugins"]
    assert (folder / kept["copy"]).read_text() == _CONSTANT
    assert (folder / "report.html").is_file()


def test_a_constant_reward_is_said_when_nobody_asked_to_stop(tmp_path: Path) -> None:
    plugin = tmp_path / "same.py"
    plugin.write_text(_CONSTANT)
    folder = tmp_path / "run"
    run(folder, f"rewards={{{plugin}:Same: 1}}", "train.iterations=6", allow_plugins=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert [text for text in manifest["alarms"] if "nothing is learned" in text]


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    run(tmp_path / "run", "train.iterations=0")
    with pytest.raises(InputError, match="output"):
        run(tmp_path / "run", "train.iterations=0")


def test_a_folder_that_cannot_be_made_leaves_none_above_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        run(tmp_path / "above" / ("x" * 300))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"backbone\.model"):
        run(tmp_path / "run", f"backbone.model={tmp_path / 'nothing'}")
    assert not (tmp_path / "run").exists()


def test_every_listener_is_told_of_the_end_even_when_another_fails() -> None:
    told: list[str] = []

    class Fails(Listener):
        def ended(self, run: Run, error: BaseException | None) -> None:
            raise StorageError("the disk is full")

    class Looks(Listener):
        def began(self, run: Run) -> None:
            raise NumericsError("it went wrong")

        def ended(self, run: Run, error: BaseException | None) -> None:
            told.append(str(error))

    class Nothing(Keeper):
        def __init__(self) -> None:
            pass

        def ended(self, run: Progress, error: BaseException | None) -> None:
            pass

    session: Any = None
    with pytest.raises(StorageError):
        Run(session=session, keeper=Nothing(), listeners=(Fails(), Looks())).execute()
    assert told == ["it went wrong"]
