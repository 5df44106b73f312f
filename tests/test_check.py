"""The conformance kit finds each fault that it looks for, names it, and says it once."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import faults
import plain_torch
import pytest
import torch
from faults import FAULTS
from training_faults import SD35, WAN, Untargeted

from treerl.backbone import random_weights
from treerl.backbone.contract import Backbone
from treerl.backbone.lora import Trainable
from treerl.backbone.settings import PipelineSettings
from treerl.check import backbone as kit
from treerl.check.finding import Finding, check, run
from treerl.check.subject import TASKS, Subject
from treerl.config.resolve import resolve
from treerl.run.quiet import quiet

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "sd35": {"height": 48, "width": 32},
    "wan": {"height": 32, "width": 32, "frames": 5},
}
CHECKS = {check.name: check for check in kit.CHECKS}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved miniatures by the name of their family."""
    quiet()
    folders = {}
    for family in (SD35, WAN):
        folders[family.name] = tmp_path_factory.mktemp(family.name)
        pipeline = random_weights.build(family, "miniature", CPU, torch.float32)
        pipeline.save_pretrained(folders[family.name])
    return folders


def maker(kind: type[Any], models: dict[str, Path]) -> Callable[[], Backbone]:
    settings = PipelineSettings(model=str(models[kind.name]), **SIZES[kind.name])
    return partial(kind.load, settings, CPU)


def wrong(findings: list[Finding]) -> list[str]:
    return [line for finding in findings if finding.wrong for line in finding.lines()]


def outcomes(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.outcome for finding in findings}


@pytest.mark.parametrize(
    ("kind", "name", "words"), FAULTS, ids=[f"{kind.__name__}-{name}" for kind, name, _ in FAULTS]
)
def test_a_fault_is_found_and_named(
    kind: type[Any], name: str, words: str, models: dict[str, Path]
) -> None:
    (finding,) = run([CHECKS[name]], Subject(maker(kind, models)))
    assert finding.wrong
    assert words in finding.came


def test_every_check_is_shown_to_find_a_fault() -> None:
    assert {name for _, name, _ in FAULTS} == set(CHECKS)


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_nothing_is_wrong_with_a_family_that_is_right(mode: Any, models: dict[str, Path]) -> None:
    subject = Subject(maker(SD35, models), trainable=Trainable(mode, 2, 2))
    findings = list(run(kit.CHECKS, subject))
    assert set(outcomes(findings)) == set(CHECKS)
    assert set(outcomes(findings).values()) == {"ok"}


@pytest.mark.parametrize(
    "kind", [faults.Unloadable, faults.Unencodable, faults.Unpredictable, faults.Swapped]
)
def test_one_fault_is_said_once(kind: type[Any], models: dict[str, Path]) -> None:
    findings = list(run(kit.CHECKS, Subject(maker(kind, models))))
    assert sum(finding.wrong for finding in findings) == 1
    assert findings[-1].outcome == "skipped" and "more" in findings[-1].name


def test_without_a_layer_for_lora_the_rest_of_training_is_skipped_or_full(
    models: dict[str, Path],
) -> None:
    make = maker(Untargeted, models)
    training = kit.CHECKS[-5:]
    findings = list(run(training, Subject(make)))
    assert outcomes(findings) == {"replay": "ok", "trainable": "WRONG", "3 more": "skipped"}
    assert "train.trainable=full" in findings[1].mend
    assert not wrong(list(run(training, Subject(make, trainable=Trainable("full")))))


def test_a_family_may_mean_other_levels(models: dict[str, Path]) -> None:
    (finding,) = run([CHECKS["levels"]], Subject(maker(faults.OwnShift, models)))
    assert finding.outcome == "skipped"


def test_what_a_plain_model_has_not_is_skipped() -> None:
    make = partial(plain_torch.Points.load, plain_torch.Points.Settings(), CPU)
    findings = list(run(kit.CHECKS, Subject(make)))
    assert not wrong(findings)
    skipped = {name for name, outcome in outcomes(findings).items() if outcome == "skipped"}
    assert skipped == {"negative prompt", "guidance", "default size", "levels", "parity"}


def test_a_finding_says_what_was_expected_what_came_and_how_to_mend_it(
    models: dict[str, Path],
) -> None:
    (finding,) = run([CHECKS["encodes"]], Subject(maker(faults.Unencodable, models)))
    assert finding.lines() == [
        "WRONG   encodes: RuntimeError: out of order",
        "        expected: The tasks become tensors with a finite row for each.",
        "        to mend:  see encode, cond, uncond and encode_prompts; tasks of its own are "
        "--set data.train=FILE",
    ]


def subjects(monkeypatch: pytest.MonkeyPatch, *sets: str) -> list[Subject]:
    """What the command would look at."""
    seen: list[Subject] = []

    def spy(checks: Any, subject: Subject) -> list[Finding]:
        seen.append(subject)
        return [Finding("x", "ok", "")]

    monkeypatch.setattr(kit, "run", spy)
    flags: dict[str, object] = {"backbone.name": "sd35", "backbone.model": "miniature"}
    names = [finding.name for finding in kit.findings(resolve(None, flags, list(sets)))]
    assert names == ["x 64x64", "x 96x80"]
    return seen


def _exits(subject: object) -> tuple[bool, str]:
    """It does not end the process."""
    raise SystemExit(0)


def test_what_ends_the_process_is_a_finding() -> None:
    (finding,) = run([check("do not exit")(_exits)], None)
    assert finding.wrong and "SystemExit" in finding.came


def test_it_tries_what_would_be_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = ("train.trainable=full", "train.gradient_checkpointing=true")
    for subject in subjects(monkeypatch, *sets):
        assert subject.trainable == replace(Trainable("full", 2, 2), gradient_checkpointing=True)


def test_it_encodes_the_tasks_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("a quiet sea\na loud sea\n", encoding="utf-8")
    subject, _ = subjects(monkeypatch, f"data.train={file}", f"data.heldout={file}")
    assert [task.prompt for task in subject.tasks] == ["a quiet sea", "a loud sea", "a quiet sea"]
    subject, _ = subjects(monkeypatch)
    assert subject.tasks == TASKS
