"""An adapter arrives whole, at the strength that it was trained with, or not at all."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_backbones import CPU, family
from torch import Tensor

from treerl.backbone import adapter, lora
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.settings import PipelineSettings
from treerl.errors import InputError

METADATA = "lora_adapter_metadata"
Tensors = dict[str, Tensor]


def sd35() -> PipelineBackbone:
    return family("sd35").load(PipelineSettings(max_sequence_length=1), CPU)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a LoRA of rank 2 and alpha 4 whose weights moved."""
    folder = tmp_path_factory.mktemp("adapter")
    backbone = sd35()
    with torch.no_grad():
        for parameter in lora.attach(backbone, lora.Trainable(rank=2, alpha=4), None, seed=0):
            parameter.add_(0.02)
    backbone.save(folder)
    return folder


def header(folder: Path) -> dict[str, str]:
    with safe_open(folder / adapter.FILE, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata


def spoilt(
    trained: Path,
    folder: Path,
    tensors: Callable[[Tensors], Tensors] = lambda tensors: tensors,
    **metadata: Any,
) -> Path:
    """A copy with other tensors, or with keys of its metadata set; None takes a key away."""
    about = json.loads(header(trained)[METADATA])
    for key, value in metadata.items():
        about[f"transformer.{key}"] = value
        if value is None:
            del about[f"transformer.{key}"]
    changed = tensors(load_file(trained / adapter.FILE))
    save_file(changed, folder / adapter.FILE, {"format": "pt", METADATA: json.dumps(about)})
    return folder


def refused(folder: Path, match: str) -> None:
    began = time.perf_counter()
    with pytest.raises(InputError, match=rf"^backbone.adapter: .* does not fit .*{match}") as error:
        lora.attach(sd35(), lora.Trainable(), folder, seed=0)
    assert str(error.value).isprintable() and len(str(error.value)) < 1500
    assert time.perf_counter() - began < 10


def renamed(rule: Callable[[str], str]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {rule(name): tensor for name, tensor in tensors.items()}


def test_a_copy_arrives_whole_in_float32_whatever_the_model(trained: Path) -> None:
    settings = PipelineSettings(max_sequence_length=1, dtype="bfloat16")
    backbone = family("sd35").load(settings, CPU)
    parameters = lora.attach(backbone, lora.Trainable(rank=2, alpha=4), trained, seed=5)
    saved = load_file(trained / adapter.FILE)
    assert len(parameters) == len(saved) > 0
    layers = adapter.layers(backbone.denoisers["transformer"])
    for name, layer in layers.items():
        assert torch.equal(
            layer.lora_A["default"].weight, saved[f"transformer.{name}.lora_A.weight"]
        )
        assert torch.equal(
            layer.lora_B["default"].weight, saved[f"transformer.{name}.lora_B.weight"]
        )
        assert layer.scaling["default"] == 2


def test_diffusers_reads_the_same_lora_from_the_same_file(trained: Path) -> None:
    mine = sd35()
    mine.restore(trained)
    theirs = sd35()
    theirs.pipeline.load_lora_weights(trained, adapter_name="default")
    layers = adapter.layers(theirs.denoisers["transformer"])
    for name, layer in adapter.layers(mine.denoisers["transformer"]).items():
        assert torch.equal(layer.lora_A["default"].weight, layers[name].lora_A["default"].weight)
        assert layer.scaling == layers[name].scaling


@pytest.mark.parametrize(
    "rule",
    [
        lambda name: name.replace("transformer.", "base_model.model.", 1),  # peft's own
        lambda name: name.replace("transformer.", "unet.", 1),  # of a U-Net
        lambda name: name.removeprefix("transformer."),
        lambda name: name.replace("lora_A", "lora_down").replace("lora_B", "lora_up"),  # kohya's
        lambda name: "lora_unet_" + name.replace(".", "_"),
        lambda name: name.replace(".lora_A.weight", ".processor.lora.down.weight"),
        lambda name: name + "\x1b[31m",
    ],
)
def test_another_naming_is_refused_with_names(
    trained: Path, tmp_path: Path, rule: Callable[[str], str]
) -> None:
    refused(spoilt(trained, tmp_path, renamed(rule)), "expected tensors named transformer.LAYER")


def test_one_foreign_tensor_is_refused(trained: Path, tmp_path: Path) -> None:
    def more(tensors: Tensors) -> Tensors:
        return {**tensors, "text_encoder.q.lora_A.weight": torch.zeros(2, 4)}

    refused(spoilt(trained, tmp_path, more), "got text_encoder.q.lora_A.weight$")


def test_a_layer_that_the_model_lacks_is_refused(trained: Path, tmp_path: Path) -> None:
    rule = renamed(lambda name: name.replace("blocks.0.", "blocks.9."))
    refused(spoilt(trained, tmp_path, rule), "SD3Transformer2DModel has no layers .*blocks.9.")


def test_half_a_pair_is_refused(trained: Path, tmp_path: Path) -> None:
    def fewer(tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if name != max(tensors)}

    refused(spoilt(trained, tmp_path, fewer), "it lacks .*lora_B.weight$")


def test_another_shape_or_no_number_is_refused(trained: Path, tmp_path: Path) -> None:
    def longer(tensors: Tensors) -> Tensors:
        name = min(tensors)
        return {**tensors, name: torch.zeros(2, tensors[name].shape[1] + 1)}

    def nan(tensors: Tensors) -> Tensors:
        return {**tensors, min(tensors): tensors[min(tensors)] / 0}

    def whole(tensors: Tensors) -> Tensors:
        return {**tensors, min(tensors): tensors[min(tensors)].to(torch.int8)}

    refused(spoilt(trained, tmp_path, whole), "expected floating-point numbers, got torch.int8: ")
    refused(spoilt(trained, tmp_path, longer), "other shapes: ")
    refused(spoilt(trained, tmp_path, nan), "not finite: ")


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"lora_alpha": None}, "its metadata tells no r and lora_alpha"),
        ({"r": None}, "its metadata tells no r and lora_alpha"),
        ({"r": 4}, "expected matrices of rank 4, got "),
        ({"r": 10**9}, "expected matrices of rank 1000000000, got "),
        ({"r": "two"}, "expected numbers"),
        ({"r": True}, "expected numbers"),
        ({"lora_alpha": [4]}, "expected numbers"),
        ({"lora_alpha": float("inf")}, "expected numbers"),
        ({"lora_alpha": 0}, "expected numbers above 0"),
        ({"lora_alpha": -4}, "expected numbers above 0"),
        ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern: expected {}"),
        ({"alpha_pattern": {"to_q": 1}}, "alpha_pattern: expected {}"),
        ({"use_rslora": True}, "use_rslora: expected False"),
        ({"use_dora": True}, "use_dora: expected False"),
    ],
)
def test_a_strength_that_is_not_told_plainly_is_refused(
    trained: Path, tmp_path: Path, metadata: dict[str, Any], match: str
) -> None:
    refused(spoilt(trained, tmp_path, **metadata), match)


def test_targets_in_the_metadata_are_not_matched_but_the_layers_themselves(
    trained: Path, tmp_path: Path
) -> None:
    bomb = spoilt(trained, tmp_path, target_modules="(((a+)+)+)+$", exclude_modules=["to_q"])
    lora.attach(sd35(), lora.Trainable(), bomb, seed=0)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "junk", "5"], ids=lambda text: text[:4])
def test_metadata_that_is_none_is_refused(trained: Path, tmp_path: Path, text: str) -> None:
    save_file(load_file(trained / adapter.FILE), tmp_path / adapter.FILE, {METADATA: text})
    refused(tmp_path, "its metadata")


def test_an_adapter_without_metadata_is_refused(trained: Path, tmp_path: Path) -> None:
    save_file(load_file(trained / adapter.FILE), tmp_path / adapter.FILE)
    refused(tmp_path, "its metadata tells no r and lora_alpha, so that its strength is not known")


def test_a_pointer_of_git_lfs_is_not_taken_for_an_adapter(tmp_path: Path) -> None:
    (tmp_path / adapter.FILE).write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(tmp_path, "is a Git LFS pointer")


def test_whole_weights_are_not_trained_on_as_a_lora(tmp_path: Path) -> None:
    first = sd35()
    lora.attach(first, lora.Trainable(mode="full"), None, seed=0)
    first.save(tmp_path)
    with pytest.raises(InputError, match=r"^train.trainable: expected full, as backbone.adapter"):
        lora.attach(sd35(), lora.Trainable(), tmp_path, seed=0)
