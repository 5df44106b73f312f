"""Learned rewards give the published scores, from files of the published layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openclip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
)

import treerl
from treerl.backbone import tokenizer
from treerl.engine.task import Samples
from treerl.errors import InputError

PROMPTS = [
    "a red fox in the snow",
    "two cups",
    "a castle made of ice at the bottom of the sea, watercolour",
]
TOLERANCE = 1e-4


def images_of(height: int = 96, width: int = 64) -> Tensor:
    """Smooth random images, one for each prompt."""
    small = torch.rand(len(PROMPTS), 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)


def pil(images: Tensor) -> list[Image.Image]:
    bytes_ = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(one) for one in bytes_]


def reward(name: str, device: str = "cpu", **fields: Any) -> Any:
    made = treerl.load("rewards", name)(device=device, **fields)
    made.load()
    return made


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(
        found, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().mean())
    )
    assert float(expected.std()) > 10 * TOLERANCE * float(
        expected.abs().mean()
    )  # or the check would say nothing


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as CLIP models are published, of random weights."""
    folder = tmp_path_factory.mktemp("clip")
    words = tokenizer.make("CLIPTokenizer", 77)
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text |= {
        "vocab_size": len(words),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config=text, vision_config=vision, projection_dim=24, initializer_factor=8.0
        )
    )
    # so that cosines are positive, and clamping leaves them
    model.visual_projection.weight.data.neg_()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return folder


def published_clip(folder: Path, images: Tensor) -> tuple[Tensor, float]:
    """Cosines as the model card computes them, and the model's scale."""
    model = CLIPModel.from_pretrained(folder).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(
        images=pil(images), return_tensors="pt"
    ).pixel_values
    words = tokenizer.make("CLIPTokenizer", 77)
    ids = words(PROMPTS, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        found = model(pixel_values=pixels, **ids)
    scale = float(model.logit_scale.exp().detach())
    return found.logits_per_image.diagonal() / scale, scale


@pytest.mark.parametrize("size", [(96, 64), (64, 97), (224, 224), (300, 225)])
def test_clip_score_is_the_published_one(clip: Path, size: tuple[int, int]) -> None:
    images = images_of(*size)
    cosine, _ = published_clip(clip, images)
    close(reward("clip", model=str(clip), raw=True)(Samples.of(images, PROMPTS)), cosine)
    close(
        reward("clip", model=str(clip), batch=2)(Samples.of(images, PROMPTS)),
        100 * cosine.clamp(min=0),
    )


def test_pickscore_is_the_published_one(clip: Path) -> None:
    cosine, scale = published_clip(clip, images_of())
    close(reward("pickscore", model=str(clip))(Samples.of(images_of(), PROMPTS)), scale * cosine)
    close(
        reward("pickscore", model=str(clip), scale=26.0)(Samples.of(images_of(), PROMPTS)),
        scale * cosine / 26,
    )


@pytest.mark.parametrize("version", ["2.1", "2.0"])
@pytest.mark.parametrize("size", [(96, 64), (64, 97), (224, 224)])
def test_hps_is_the_published_one(tmp_path: Path, version: str, size: tuple[int, int]) -> None:
    towers = openclip.Towers()
    name = {"2.1": "HPS_v2.1_compressed.pt", "2.0": "HPS_v2_compressed.pt"}[version]
    torch.save({"state_dict": towers.state_dict()}, tmp_path / name)
    words = tokenizer.make("CLIPTokenizer", 77)
    words.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    images = images_of(*size)
    pixels = torch.stack([openclip.letterboxed(one) for one in pil(images)])
    ids = words(
        PROMPTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        seen, read = (
            nn.functional.normalize(one, dim=-1) for one in (towers.see(pixels), towers.read(ids))
        )
    found = reward("hps", model=str(tmp_path), tokenizer=str(tmp_path), version=version)(
        Samples.of(images, PROMPTS)
    )
    close(found, (seen * read).sum(-1))


def test_aesthetic_is_the_published_one(clip: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = [24, 1024, 128, 64, 16, 1]
    places = ["layers.0", "layers.2", "layers.4", "layers.6", "layers.7"]
    head = {
        f"{place}.weight": torch.randn(b, a) / a**0.5
        for place, a, b in zip(places, sizes, sizes[1:], strict=False)
    }
    head |= {f"{place}.bias": torch.randn(b) for place, b in zip(places, sizes[1:], strict=True)}
    torch.save(head, tmp_path / "aesthetic.pth")
    model = CLIPModel.from_pretrained(clip).eval()
    pixels = CLIPImageProcessorPil()(images=pil(images_of()), return_tensors="pt").pixel_values
    with torch.no_grad():
        found = nn.functional.normalize(
            model.get_image_features(pixel_values=pixels).pooler_output, dim=-1
        )
        for place in places:
            found = found @ head[f"{place}.weight"].T + head[f"{place}.bias"]
    close(
        reward("aesthetic", model=str(tmp_path / "aesthetic.pth"), tower=str(clip))(
            Samples.of(images_of(), PROMPTS)
        ),
        found[:, 0],
    )


@pytest.mark.parametrize("name", ["hps", "clip", "pickscore", "aesthetic", "imagereward"])
def test_without_weights_or_a_network_it_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=rf"^reward {name}: its .*nor in the cache .*`hf download "
    ) as caught:
        reward(name)
    assert "\n" not in str(caught.value)


def spoilt(folder: Path, content: object) -> str:
    torch.save(content, folder / "weights.pt")
    return str(folder / "weights.pt")


def test_weights_that_are_none_are_refused(tmp_path: Path, clip: Path) -> None:
    def refused(match: str, name: str, **fields: Any) -> None:
        with pytest.raises(InputError, match=match) as caught:
            reward(name, **fields)
        assert "\n" not in str(caught.value)

    other = spoilt(tmp_path, {"x": torch.zeros(1)})
    refused("^reward hps: its weights are of another model: unknown tensor 'x'", "hps", model=other)
    refused("^reward aesthetic: its weights are of another model", "aesthetic", model=other)
    refused("^reward imagereward: its weights are of another model", "imagereward", model=other)
    refused("^rewards.hps.model: no such file", "hps", model=str(tmp_path / "nothing.pt"))
    refused("^rewards.clip.model: no such file or folder: ./nowhere", "clip", model="./nowhere")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    refused("unknown tensor 'x'", "hps", model=str(tmp_path / "x.safetensors"))


def test_bad_fields_are_refused(clip: Path) -> None:
    for fields, match in (({"dtype": "int8"}, "dtype"), ({"batch": 0}, "batch")):
        with pytest.raises(ValueError, match=match):
            reward("clip", model=str(clip), **fields)
    with pytest.raises(ValueError, match=r"version: expected 2.1 or 2.0, got 3"):
        reward("hps", version="3")


def test_a_score_does_not_depend_on_the_batch(clip: Path) -> None:
    images = images_of()
    one, other = (
        reward("clip", model=str(clip), batch=size)(Samples.of(images, PROMPTS)) for size in (1, 3)
    )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def order(values: Sequence[float]) -> list[int]:
    found: list[int] = np.argsort(values).tolist()
    return found


@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_half_precision_ranks_the_same(clip: Path, dtype: str) -> None:
    full, half = (
        reward("clip", model=str(clip), dtype=one)(Samples.of(images_of(), PROMPTS))
        for one in ("float32", dtype)
    )
    assert order(full.tolist()) == order(half.tolist())
