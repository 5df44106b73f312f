"""A model of plain torch modules trains, is saved, restored and exported by the contract alone."""

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from plain_torch import Points
from test_backbones import CPU
from torch import Tensor, nn

from treerl.backbone import lora
from treerl.engine.task import Task
from treerl.errors import InputError, StorageError

Mode = Literal["lora", "full"]
MODES: list[Mode] = ["lora", "full"]


def points(width: int = 8) -> Points:
    return Points.load(Points.Settings(hidden=width), CPU)


def prediction(backbone: Points) -> Tensor:
    x = torch.tensor([[0.1, 0.2], [-1.0, 0.5]])
    condition = backbone.encode([Task("a"), Task("ab")])
    with torch.no_grad():
        return backbone.predict(x, torch.tensor([0.3, 0.7]), condition, 1.0)


def moved(backbone: Points, mode: Mode, start: Path | None = None, keep: bool = False) -> Points:
    """The backbone after a step of training."""
    parameters = lora.attach(backbone, lora.Trainable(mode, rank=2, alpha=4), start, 0, keep)
    assert parameters and all(parameter.requires_grad for parameter in parameters)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1)
    return backbone


@pytest.mark.parametrize("mode", MODES)
def test_what_is_saved_is_what_is_restored(tmp_path: Path, mode: Mode) -> None:
    first = moved(points(), mode)
    first.save(tmp_path)
    second = points()
    assert not torch.equal(prediction(first), prediction(second))
    second.restore(tmp_path)
    assert torch.equal(prediction(first), prediction(second))


@pytest.mark.parametrize("mode", MODES)
def test_an_export_holds_the_weights_and_says_what_they_are(tmp_path: Path, mode: Mode) -> None:
    moved(points(), mode).export(tmp_path)
    described = json.loads((tmp_path / "describe.json").read_text(encoding="utf-8"))
    assert described["title"] == "Points" and described["latent_shape"] == [2]
    assert list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("mode", MODES)
def test_weights_of_another_width_are_refused_by_name(tmp_path: Path, mode: Mode) -> None:
    moved(points(8), mode).save(tmp_path)
    with pytest.raises(InputError, match=r"^backbone.adapter: .* other shapes: (net.)?first"):
        points(16).restore(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^backbone.adapter: .* nor the weights of net$"):
        points().restore(tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_the_reference_is_the_model_as_training_started(mode: Mode) -> None:
    before = prediction(points())
    backbone = moved(points(), mode, keep=True)
    after = prediction(backbone)
    with lora.reference(backbone):
        assert torch.equal(prediction(backbone), before)
    assert torch.equal(prediction(backbone), after) and not torch.equal(after, before)


@pytest.mark.parametrize("mode", MODES)
def test_the_reference_of_a_run_that_starts_from_a_checkpoint_is_that_checkpoint(
    tmp_path: Path, mode: Mode
) -> None:
    first = moved(points(), mode)
    first.save(tmp_path)
    second = moved(points(), mode, tmp_path, keep=True)
    with lora.reference(second):
        assert torch.equal(prediction(second), prediction(first))
    assert not torch.equal(prediction(second), prediction(first))
    assert all(parameter.requires_grad for parameter in second.start.parameters)  # type: ignore[union-attr]


def test_a_reference_that_was_not_kept_is_no_reference() -> None:
    backbone = moved(points(), "full")
    with pytest.raises(RuntimeError, match="keep_reference"), lora.reference(backbone):
        pass


def test_targets_that_match_nothing_are_one_line() -> None:
    backbone = points()
    backbone.lora_targets = ("nowhere",)  # type: ignore[misc]
    with pytest.raises(InputError, match=r"no layer of Net matches the LoRA targets nowhere$"):
        lora.attach(backbone, lora.Trainable(), None, 0)


def test_a_layer_that_takes_no_lora_is_one_line() -> None:
    backbone = points()
    backbone.net.norm = nn.LayerNorm(8)
    backbone.lora_targets = ("norm",)  # type: ignore[misc]
    with pytest.raises(InputError, match="a layer of Net takes no LoRA; name linear") as error:
        lora.attach(backbone, lora.Trainable(), None, 0)
    assert "\n" not in str(error.value)


def test_gradient_checkpointing_that_a_module_has_not_is_one_line() -> None:
    trainable = lora.Trainable(gradient_checkpointing=True, rank=2)
    with pytest.raises(InputError, match=r"^train.gradient_checkpointing: .* as Net has none$"):
        lora.attach(points(), trainable, None, 0)


def test_a_rank_that_fits_no_memory_is_refused_by_arithmetic() -> None:
    with pytest.raises(InputError, match=r"^train.lora_rank: a LoRA of rank 1000000000: needs "):
        lora.attach(points(), lora.Trainable(rank=10**9), None, 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path, mode: Mode) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        moved(points(), mode).save(tmp_path / "file")


@pytest.mark.parametrize("mode", MODES)
def test_asking_the_reference_between_forward_and_backward_changes_no_gradient(mode: Mode) -> None:
    def slopes(ask: bool) -> list[Tensor]:
        backbone = moved(points(), mode, keep=True)
        condition = backbone.encode([Task("a"), Task("ab")])
        x = torch.tensor([[0.1, 0.2], [-1.0, 0.5]])
        time = torch.tensor([0.3, 0.7])
        loss = backbone.predict(x, time, condition, 1.0).square().sum()
        if ask:
            with torch.no_grad(), lora.reference(backbone):
                backbone.predict(x, time, condition, 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        assert backbone.start is not None
        gradients = []
        for parameter in backbone.start.parameters:
            assert parameter.grad is not None
            gradients.append(parameter.grad)
        return gradients

    for asked, plain in zip(slopes(True), slopes(False), strict=True):
        assert bool(plain.any()) and torch.equal(asked, plain)
