"""Malicious run folders that are shown: what they say is text, and nothing else is read."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import (
    ATTACK,
    DRAWINGS,
    ESCAPES,
    SECRET,
    Place,
    change,
    drawing,
    link,
    place as place,
    told,
)
from recorded import create, record

from treerl.run import durable

RUN = Path("run")
SHOW = ["show", "run"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as a run leaves it."""
    return record(create(tmp_path_factory.mktemp("runs") / "run", "treegrpo"), 2, 1).path


@pytest.fixture
def copied(recorded: Path, place: Place) -> Place:
    """A copy of it to be spoilt."""
    shutil.copytree(recorded, RUN)
    return place


def in_the_manifest() -> None:
    versions = {ATTACK: ATTACK}
    change(RUN / "manifest.json", error=ATTACK, device=ATTACK, started=ATTACK, versions=versions)
    change(RUN / "manifest.json", command=[ATTACK], alarms=[ATTACK], plan={ATTACK: 1})


def in_the_prompts() -> None:
    path = RUN / "samples" / "samples.json"
    rows = json.loads(path.read_text())["samples"]
    change(path, samples=[{**row, "prompt": ATTACK} for row in rows])
    change(RUN / "trees" / "first.json", prompt=ATTACK)
    change(RUN / "trees" / "last.json", prompt=ATTACK)


def in_the_settings() -> None:
    backbone = {"name": ATTACK, "model": ATTACK}
    settings = {"recipe": ATTACK, "backbone": backbone, "rewards": {ATTACK: 1}}
    (RUN / "config.yaml").write_text(json.dumps(settings))


def in_the_metrics() -> None:
    rows = [{"iteration": number, ATTACK: number, "alarms": [ATTACK]} for number in (1, 2)]
    (RUN / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    "plant", [in_the_manifest, in_the_prompts, in_the_settings, in_the_metrics]
)
def test_markup_and_escapes_are_text(
    plant: Callable[[], None], copied: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    plant()
    told(SHOW, 0, capsys)
    page = (RUN / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page and "<script" not in page
    assert not set("\x1b\x07\u202e") & set(page)


@pytest.mark.parametrize("name", DRAWINGS)
def test_an_image_that_is_none_is_left_out(
    name: str, copied: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in [*RUN.glob("samples/*.png"), *RUN.glob("trees/*/*.png")]:
        path.write_bytes(drawing(copied)[name])
    told(SHOW, 0, capsys)
    page = (RUN / "report.html").read_text(encoding="utf-8")
    assert "data:image" not in page
    assert ("the file is too large" if name == "bomb" else "the file is torn") in page


def shot(image: Any) -> None:
    path = RUN / "samples" / "samples.json"
    rows = json.loads(path.read_text())["samples"]
    change(path, samples=[{**row, "before": {"image": image, "score": 1}} for row in rows])


def pickled(place: Place) -> None:
    (RUN / "manifest.json").write_bytes(place.pickled)


def pickled_tree(place: Place) -> None:
    (RUN / "trees" / "first.json").write_bytes(place.pickled)


def pickled_rows(place: Place) -> None:
    (RUN / "metrics.jsonl").write_bytes(place.pickled + b"\n")


def object_in_the_settings(place: Place) -> None:
    (RUN / "config.yaml").write_text("seed: !!python/object/apply:os.system ['touch ../ran']\n")


def image_above(place: Place) -> None:
    shot("../../../outside/precious.png")


def image_elsewhere(place: Place) -> None:
    shot(str(place.outside / "precious.png"))


def settings_elsewhere(place: Place) -> None:
    link(RUN / "config.yaml", place.outside / "precious.yaml")


def samples_elsewhere(place: Place) -> None:
    link(RUN / "samples", place.outside)


def page_elsewhere(place: Place) -> None:
    link(RUN / "report.html", place.outside / "precious")


def draft_elsewhere(place: Place) -> None:
    link(RUN / f".draft-report.html.{os.getpid()}", place.outside / "precious")


def link_to_itself(place: Place) -> None:
    link(RUN / "samples" / "before-000.png", Path("before-000.png"))


CASES: dict[str, tuple[Callable[[Place], None], int, str]] = {
    "pickle": (pickled, 4, "manifest.json"),
    "tree that is a pickle": (pickled_tree, 4, "first.json"),
    "rows that are a pickle": (pickled_rows, 4, "metrics.jsonl:1"),
    "object in the settings": (object_in_the_settings, 4, "config.yaml: not YAML"),
    "image above": (image_above, 4, "samples.json"),
    "image elsewhere": (image_elsewhere, 4, "samples.json"),
    "settings elsewhere": (settings_elsewhere, 2, "got a link to"),
    "samples elsewhere": (samples_elsewhere, 2, "got a link to"),
    "page elsewhere": (page_elsewhere, 2, "got a link to"),
    "draft elsewhere": (draft_elsewhere, 2, "got a link to"),
    "link to itself": (link_to_itself, 2, "got a link to"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_folder_is_not_shown(
    name: str, copied: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, code, match = CASES[name]
    spoil(copied)
    said = told(SHOW, code, capsys)
    assert match in said and SECRET not in said
    page = RUN / "report.html"
    assert page.is_symlink() or not page.exists()


def test_a_folder_called_like_a_command_of_the_terminal_is_only_named(
    copied: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    RUN.rename(ESCAPES)
    assert "report.html" in told(["show", ESCAPES], 0, capsys)


def test_a_file_is_not_published_through_a_link(place: Place) -> None:
    Path(f".draft-a.{os.getpid()}").symlink_to(place.outside / "precious")
    durable.publish_file(Path("a"), "text")
    assert Path("a").read_text() == "text" and not Path("a").is_symlink()
