"""Whole weights as files: a LoRA merged into them, their scheduler, several files of one module."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import PNDMScheduler
from safetensors.torch import load_file, save_file
from test_backbones import CPU, backbone_of, config, family
from test_export import saved
from test_plain_backbone import moved, points, prediction

from treerl.backbone import adapter, exporting, random_weights


def test_a_merged_lora_is_added_to_the_weights_at_its_strength(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_loads_lora", lambda pipeline: False)
    pipeline = random_weights.build(family("sd35"), "miniature", CPU, torch.float32)
    pipeline.save_pretrained(tmp_path / "model")
    chosen = config("sd35", f"backbone.model={tmp_path / 'model'}", "backbone.dtype=float32")
    backbone = backbone_of(chosen)
    saved(backbone, chosen, tmp_path / "run")
    layers = adapter.layers(backbone.pipeline.transformer)
    with torch.no_grad():
        deltas = {name: layer.get_delta_weight(adapter.NAME) for name, layer in layers.items()}
    file = Path("transformer", "diffusion_pytorch_model.safetensors")
    base = load_file(tmp_path / "model" / file)
    backbone.export(tmp_path / "out")
    merged = load_file(tmp_path / "out" / file)
    assert set(merged) == set(base) and deltas
    for name, tensor in merged.items():
        delta = deltas.get(name.removesuffix(".weight"))
        expected = base[name] if delta is None else base[name] + delta
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)
        assert delta is None or float(delta.abs().max()) > 1e-3


def test_an_exported_pipeline_carries_the_scheduler_that_it_came_with(tmp_path: Path) -> None:
    """What walks a diffusion model here is DDIM; who loads it may want its own again."""
    place = tmp_path / "model"
    pipeline = random_weights.build(family("sd15"), "miniature", CPU, torch.float32)
    pipeline.scheduler = PNDMScheduler.from_config(pipeline.scheduler.config)
    pipeline.save_pretrained(place)
    chosen = config("sd15", f"backbone.model={place}", "train.trainable=full")
    backbone = backbone_of(chosen)
    saved(backbone, chosen, tmp_path / "run")
    walked = backbone.pipeline.scheduler
    backbone.export(tmp_path / "out")
    file = Path("scheduler", "scheduler_config.json")
    came, went = (json.loads((folder / file).read_text()) for folder in (place, tmp_path / "out"))
    assert went == came and came["_class_name"] == "PNDMScheduler"
    assert backbone.pipeline.scheduler is walked and type(walked).__name__ == "DDIMScheduler"


def test_weights_may_lie_in_several_files(tmp_path: Path) -> None:
    first = moved(points(), "full")
    first.save(tmp_path)
    (file,) = (tmp_path / "net").glob("*.safetensors")
    tensors = load_file(file)
    file.unlink()
    for number, name in enumerate(tensors):
        save_file({name: tensors[name]}, tmp_path / "net" / f"model-{number}.safetensors")
    second = points()
    second.restore(tmp_path)
    assert torch.equal(prediction(first), prediction(second)) and len(tensors) > 2
