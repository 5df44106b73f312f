"""The model inside the package: small, genuine, loadable offline, good but wrong often."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

import treerl
from treerl.shapes import every_caption

FOLDER = Path(str(files("treerl") / "tiny" / "sd35"))


def right(guidance: float) -> float:
    pipeline = StableDiffusion3Pipeline.from_pretrained(FOLDER, text_encoder_3=None, tokenizer_3=None)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [caption.text for caption in every_caption()]
    pictures = pipeline(
        prompts,
        num_inference_steps=10,
        guidance_scale=guidance,
        max_sequence_length=1,
        output_type="pt",
        generator=torch.Generator().manual_seed(7),
    ).images
    return float(treerl.load("rewards", "shapes")().measures(pictures, prompts)["right"].mean())


def test_it_is_small_and_made_of_diffusers_own_classes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 8_000_000
    index = json.loads((FOLDER / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusion3Pipeline"
    assert index["transformer"] == ["diffusers", "SD3Transformer2DModel"]
    assert not list(FOLDER.rglob("*.bin")) and not list(FOLDER.rglob("*.pt"))


def test_it_is_wrong_often_without_guidance_and_less_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    plain, guided = right(1.0), right(3.0)
    assert 0.4 < plain < 0.7 < guided
