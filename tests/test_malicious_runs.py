"""Malicious run folders, taken up again or exported: nothing runs, nothing else is touched."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from ended_runs import prepare, run
from hostile import ATTACK, Place, change, link, place as place, sum_up, told
from safetensors.torch import load_file, save_file

RUN = Path("run")
LAST = RUN / "checkpoints" / "iteration-000001"
RESUME = ["run", "--resume", "run", "--set", "train.iterations=2"]
ALLOW = "--allow-plugins"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one iteration, and what it names."""
    folder = tmp_path_factory.mktemp("ended")
    with chdir(folder):
        prepare(folder)
        run(RUN, "train.iterations=1")
    return folder


@pytest.fixture
def copied(ended: Path, place: Place) -> Place:
    """A copy of it to be spoilt."""
    shutil.copytree(ended, place.inside, dirs_exist_ok=True)
    return place


def entry_above(place: Place) -> None:
    sum_up(LAST, **{"../../../../outside/precious": place.outside / "precious"})


def entry_elsewhere(place: Place) -> None:
    path = place.outside / "precious"
    sum_up(LAST, **{str(path): path})


def state_pickle(place: Place) -> None:
    (LAST / "training" / "state.json").write_bytes(place.pickled)
    sum_up(LAST)


def tensors_pickle(place: Place) -> None:
    (LAST / "training" / "tensors.safetensors").write_bytes(place.saved)
    sum_up(LAST)


def manifest_pickle(place: Place) -> None:
    (LAST / "manifest.json").write_bytes(place.pickled)


def other_tensors(place: Place) -> None:
    path = LAST / "training" / "tensors.safetensors"
    save_file({f"../../{ATTACK}": value for value in load_file(path).values()}, path)
    sum_up(LAST)


def folder_in_a_checkpoint(place: Place) -> None:
    (LAST / "transformer").symlink_to("../iteration-000001")


def file_elsewhere(place: Place) -> None:
    link(LAST / "training" / "state.json", place.outside / "precious")


def checkpoints_elsewhere(place: Place) -> None:
    link(RUN / "checkpoints", place.outside)


def samples_elsewhere(place: Place) -> None:
    link(RUN / "samples", place.outside)


def image_elsewhere(place: Place) -> None:
    link(RUN / "samples" / "after-000.png", place.outside / "precious.png")


def tree_elsewhere(place: Place) -> None:
    link(RUN / "trees" / "last", place.outside)


def metrics_elsewhere(place: Place) -> None:
    link(RUN / "metrics.jsonl", place.outside / "precious")


def lock_elsewhere(place: Place) -> None:
    link(RUN / ".lock", place.outside / "new")


def draft_elsewhere(place: Place) -> None:
    (RUN / f".draft-config.yaml.{os.getpid()}").symlink_to(place.outside / "precious.yaml")


def object_in_the_settings(place: Place) -> None:
    (RUN / "config.yaml").write_text("seed: !!python/object/apply:os.system ['touch ../ran']\n")


def plug_in_without_leave(place: Place) -> None:
    Path("dark.py").write_text(place.code)


def kept_copy(place: Place) -> None:
    """What the run was trained with, changed in the run folder alone."""
    for path in RUN.glob("plugins/*/*.py"):
        path.write_text(place.code)


def kept_elsewhere(place: Place) -> None:
    (place.inside / "mine.py").write_text(place.code)
    kept = json.loads((RUN / "manifest.json").read_text())["plugins"]
    change(RUN / "manifest.json", plugins=[{**plugin, "copy": "../mine.py"} for plugin in kept])


CASES: dict[str, tuple[Callable[[Place], None], list[str], int, str]] = {
    "entry above": (entry_above, [*RESUME, ALLOW], 4, "precious is missing"),
    "entry elsewhere": (entry_elsewhere, [*RESUME, ALLOW], 4, "precious is missing"),
    "state is a pickle": (state_pickle, [*RESUME, ALLOW], 4, "state.json"),
    "tensors are a pickle": (tensors_pickle, [*RESUME, ALLOW], 4, "tensors.safetensors"),
    "manifest is a pickle": (manifest_pickle, [*RESUME, ALLOW], 4, "manifest.json"),
    "names of tensors": (other_tensors, [*RESUME, ALLOW], 4, "iteration-000001"),
    "link in a checkpoint": (folder_in_a_checkpoint, [*RESUME, ALLOW], 4, "is foreign"),
    "file elsewhere": (file_elsewhere, [*RESUME, ALLOW], 2, "got a link to"),
    "checkpoints elsewhere": (checkpoints_elsewhere, [*RESUME, ALLOW], 2, "got a link to"),
    "samples elsewhere": (samples_elsewhere, [*RESUME, ALLOW], 2, "got a link to"),
    "image elsewhere": (image_elsewhere, [*RESUME, ALLOW], 2, "got a link to"),
    "tree elsewhere": (tree_elsewhere, [*RESUME, ALLOW], 2, "got a link to"),
    "metrics elsewhere": (metrics_elsewhere, [*RESUME, ALLOW], 2, "got a link to"),
    "lock elsewhere": (lock_elsewhere, [*RESUME, ALLOW], 2, "got a link to"),
    "draft elsewhere": (draft_elsewhere, [*RESUME, ALLOW], 2, "got a link to"),
    "object in the settings": (object_in_the_settings, [*RESUME, ALLOW], 2, "tags are not"),
    "plug-in without leave": (plug_in_without_leave, RESUME, 2, ALLOW),
    "kept copy without leave": (kept_copy, ["export", "run", "new"], 2, ALLOW),
    "kept copy": (kept_copy, ["export", "run", "new", ALLOW], 2, "is not the plug-in that"),
    "kept elsewhere": (kept_elsewhere, ["export", "run", "new", ALLOW], 2, "has no file"),
    "object to export": (object_in_the_settings, ["export", "run", "new", ALLOW], 2, "tags are"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_folder_is_refused(
    name: str, copied: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words, code, match = CASES[name]
    spoil(copied)
    assert match in told(words, code, capsys)
    assert not Path("new").exists()


def test_a_folder_that_a_start_left_has_no_parts_elsewhere(
    copied: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("settings.yaml").write_bytes((RUN / "config.yaml").read_bytes())
    shutil.rmtree(RUN)
    RUN.mkdir()
    for name in ("samples", "trees", "checkpoints"):
        (RUN / name).symlink_to(copied.outside / "empty")
    words = ["run", "--config", "settings.yaml", "--output", "run", "--resume", "auto", ALLOW]
    assert "got a link to" in told(words, 2, capsys)


def test_a_run_goes_on_in_its_folder_whatever_its_settings_say(
    copied: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (RUN / "config.yaml").read_text()
    (RUN / "config.yaml").write_text(text.replace("output: run", "output: ../outside/new"))
    told([*RESUME, ALLOW], 0, capsys)
    assert (RUN / "checkpoints" / "iteration-000002").is_dir()


def test_prompts_that_are_paths_or_markup_are_text(
    copied: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["../../outside/precious", "<script>alert(1)</script>", "$(touch ../ran)"]
    Path("prompts.txt").write_text("\n".join(prompts))
    Path("settings.yaml").write_bytes((RUN / "config.yaml").read_bytes())
    words = ["run", "--config", "settings.yaml", "--output", "new", ALLOW]
    told(words, 0, capsys)
    page = Path("new/report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
