"""The weights of another run, that an objective compares with."""

from pathlib import Path

import pytest
import torch
from test_backbones import config, session_of
from torch import Tensor

from treerl.backbone import lora
from treerl.check.subject import Subject
from treerl.engine.objective import Clipped
from treerl.errors import InputError
from treerl.run.session import Session

ASKS = ("objective.kl=0.1", "objective.anchor=teacher")


def session(*sets: str) -> Session:
    return session_of(config("sd35", *sets))


def prediction(made: Session) -> Tensor:
    with torch.no_grad():
        return Subject(lambda: made.backbone).predict()


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """The folder of a trained LoRA, and what the model predicts with it."""
    made = session("train.learning_rate=1e-2")
    made.trainer.iterate(["a cat", "a dog"])
    folder = tmp_path_factory.mktemp("teacher")
    made.save(folder)
    return folder, prediction(made)


def test_the_teacher_is_the_other_run_and_leaves_nothing_behind(
    taught: tuple[Path, Tensor],
) -> None:
    folder, expected = taught
    made = session(f"train.teacher={folder}", *ASKS)
    own = prediction(made)
    with lora.teacher(made.backbone):
        assert torch.equal(prediction(made), expected)
    assert torch.equal(prediction(made), own)
    assert torch.equal(own, prediction(session()))
    with torch.no_grad(), lora.reference(made.backbone):
        assert torch.equal(Subject(lambda: made.backbone).predict(), own)
    assert float((own - expected).abs().max()) > 1e-4


def test_the_kl_is_to_the_anchor(taught: tuple[Path, Tensor]) -> None:
    folder, _ = taught
    losses = {}
    for anchor in ("start", "teacher"):
        sets = [f"train.teacher={folder}"] if anchor == "teacher" else []
        made = session(*sets, "objective.kl=100", f"objective.anchor={anchor}")
        metrics = made.trainer.iterate(["a cat", "a dog"]).metrics
        assert metrics["reference_forwards"] == metrics["update_forwards"] > 0
        losses[anchor] = metrics["loss"]
    plain = session().trainer.iterate(["a cat", "a dog"]).metrics["loss"]
    # the start is where training begins: the first optimizer step has no KL to it
    assert losses["teacher"] > losses["start"] + 1e-3 > plain


def test_an_anchor_names_the_weights_that_are_asked_for() -> None:
    assert Clipped(kl=0.1).weight_set == "start"
    assert Clipped(kl=0.1, anchor="ema").weight_set == "ema"
    assert Clipped(kl=0.0, anchor="teacher").weight_set is None


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (ASKS, "expected a folder, as this objective asks for the teacher, got null"),
        (("train.teacher=somewhere",), "expected null, as no objective asks, got 'somewhere'"),
        (("objective.kl=0.1", "objective.anchor=ema"), "expected train.ema above 0"),
    ],
)
def test_what_is_asked_for_must_be_there_and_the_other_way_round(
    sets: tuple[str, ...], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        config("sd35", *sets)


def test_a_teacher_that_does_not_fit_is_named_by_its_setting(
    taught: tuple[Path, Tensor], tmp_path: Path
) -> None:
    folder, _ = taught
    with pytest.raises(InputError, match=r"^train.teacher: .* does not fit this model"):
        session(f"train.teacher={folder}", *ASKS, "train.lora_rank=3")
    with pytest.raises(InputError, match=r"^train.teacher: expected whole weights, got a LoRA"):
        session(f"train.teacher={folder}", *ASKS, "train.trainable=full")
    with pytest.raises(InputError, match=r"^train.teacher: .* has neither"):
        session(f"train.teacher={tmp_path}", *ASKS)
