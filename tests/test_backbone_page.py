"""The families of the page on backbones keep the contract, as the page says."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from pages import EXTENDING, load, write_files
from PIL import Image

from treerl import registry
from treerl.backbone import random_weights
from treerl.backbone.settings import PipelineSettings
from treerl.check.backbone import CHECKS
from treerl.check.finding import Finding, run
from treerl.check.kinds import findings
from treerl.check.subject import Subject
from treerl.run.quiet import quiet

PAGE = EXTENDING / "backbone.md"
CPU = torch.device("cpu")


def wrong(found: list[Finding]) -> list[str]:
    return [line for finding in found if finding.wrong for line in finding.lines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files, where its commands are given."""
    quiet()
    write_files(PAGE, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(family: str, pipeline_class: str | None, folder: Path) -> str:
    """The folder of a shipped family's miniature, or of another pipeline of the same parts."""
    shipped = registry.load("backbones", family)
    pipeline: Any = random_weights.build(shipped, "miniature", CPU, torch.float32)
    if pipeline_class is not None:
        pipeline = getattr(diffusers, pipeline_class)(**pipeline.components)
    pipeline.save_pretrained(folder / "model")
    return str(folder / "model")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["./auraflow.py:AuraFlow", "./pixels.py:Pixels"])
def test_the_check_that_the_page_gives_finds_nothing_wrong(name: str, folder: Path) -> None:
    found = list(findings("backbone", name, None, [], True))
    assert len(found) >= len(CHECKS)
    assert not wrong(found)


@pytest.mark.parametrize(
    ("shipped", "name", "size"),
    [
        ("wan", "FirstOrder", {"height": 32, "width": 32, "frames": 5}),
        ("sd15", "Deterministic", {"height": 64, "width": 64}),
    ],
)
def test_a_solver_of_the_page_keeps_the_path_of_the_pipeline(
    shipped: str, name: str, size: dict[str, int], folder: Path
) -> None:
    family = load(folder / "solvers.py", name)
    settings = PipelineSettings(model=saved(shipped, None, folder), **size)  # type: ignore[arg-type]
    checks = [check for check in CHECKS if check.name in ("finite", "parity")]
    found = list(run(checks, Subject(partial(family.load, settings, CPU))))
    assert [finding.outcome for finding in found] == ["ok", "ok"]


@pytest.mark.slow
def test_a_family_that_edits_images_is_tried_on_tasks_of_its_own(folder: Path) -> None:
    rows = []
    for number, colour in enumerate([(200, 30, 30), (20, 60, 220), (90, 200, 90)]):
        image = Image.new("RGB", (70, 50), colour)
        image.paste((250, 250, 250), (10, 10, 30, 30))
        image.save(folder / f"{number}.png")
        prompt = "make it night, with stars" if number == 1 else f"paint it {number}"
        rows.append(json.dumps({"prompt": prompt, "image": f"{number}.png"}))
    (folder / "edits.jsonl").write_text("\n".join(rows), encoding="utf-8")
    model = saved("flux", "FluxKontextPipeline", folder)
    sets = ["backbone.height=64", "backbone.width=64"]
    mine = ["data.train=edits.jsonl", "data.heldout=edits.jsonl"]
    name = "./kontext.py:Kontext"
    without = list(findings("backbone", name, model, sets, True))
    assert "image: FLUX.1 Kontext needs a file, got none" in "\n".join(wrong(without))
    assert without[-1].outcome == "skipped"
    assert not wrong(list(findings("backbone", name, model, [*sets, *mine], True)))
