"""What is exported for ComfyUI has names that it knows, and adds what peft adds."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_backbones import CPU, FAMILIES, family
from torch import Tensor

from treerl.backbone import adapter, comfyui, lora
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.settings import PipelineSettings

FACTS = yaml.safe_load((Path(__file__).parent / "data" / "comfyui_keys.yaml").read_text())
KNOWN: dict[str, list[str]] = FACTS["families"]
UNKNOWN = sorted(set(FAMILIES) - set(KNOWN))
# the one layer of ComfyUI: those of diffusers whose outputs it has, in this order
FUSED = {
    r"double_blocks\.(\d+)\.img_attn\.qkv": r"transformer_blocks.\1.attn.to_{}",
    r"double_blocks\.(\d+)\.txt_attn\.qkv": r"transformer_blocks.\1.attn.add_{}_proj",
    r"single_blocks\.(\d+)\.linear1": r"single_transformer_blocks.\1.attn.to_{}",
    r"txt_in\.individual_token_refiner\.blocks\.(\d+)\.self_attn\.qkv": (
        r"context_embedder.token_refiner.refiner_blocks.\1.attn.to_{}"
    ),
}
SINGLE = {
    r"double_blocks\.(\d+)\.img_attn\.proj": r"transformer_blocks.\1.attn.to_out.0",
    r"double_blocks\.(\d+)\.txt_attn\.proj": r"transformer_blocks.\1.attn.to_add_out",
    r"txt_in\.individual_token_refiner\.blocks\.(\d+)\.self_attn\.proj": (
        r"context_embedder.token_refiner.refiner_blocks.\1.attn.to_out.0"
    ),
    r"(blocks\.\d+)\.self_attn\.([qkv])": r"\1.attn1.to_\2",
    r"(blocks\.\d+)\.self_attn\.o": r"\1.attn1.to_out.0",
    r"(blocks\.\d+)\.cross_attn\.([qkv])": r"\1.attn2.to_\2",
    r"(blocks\.\d+)\.cross_attn\.o": r"\1.attn2.to_out.0",
}


def adapted(name: str) -> PipelineBackbone:
    """A miniature whose LoRA, of rank 2 and alpha 6, has moved."""
    backbone = family(name).load(PipelineSettings(model="miniature"), CPU)
    with torch.no_grad():
        for parameter in lora.attach(backbone, lora.Trainable(rank=2, alpha=6), None, seed=0):
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return backbone


def sources(name: str, layers: list[str]) -> list[str]:
    """The layers of diffusers whose weights the layer of ComfyUI has, one under the other."""
    plain = re.sub(r"^(transformer|diffusion_model)\.", "", name)
    for pattern, replacement in FUSED.items():
        match = re.fullmatch(pattern, plain)
        if match:
            return [match.expand(replacement.format(letter)) for letter in "qkv"]
    for pattern, replacement in SINGLE.items():
        match = re.fullmatch(pattern, plain)
        if match:
            return [match.expand(replacement)]
    if plain.startswith("lora_unet_"):
        return [layer for layer in layers if plain == "lora_unet_" + layer.replace(".", "_")]
    return [plain]


def deltas(path: Path) -> dict[str, Tensor]:
    """What a file adds to each weight, by the rule of ComfyUI."""
    tensors = load_file(path)
    added = {}
    for name in {re.sub(FACTS["suffixes"] + "$", "", key) for key in tensors}:
        down = tensors[f"{name}.lora_down.weight"]
        scale = float(tensors[f"{name}.alpha"]) / len(down)
        assert scale == 1  # a loader that reads no alpha applies the same
        added[name] = scale * tensors[f"{name}.lora_up.weight"] @ down
    return added


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_name_is_known_and_every_delta_is_pefts(name: str, tmp_path: Path) -> None:
    backbone = adapted(name)
    layers = adapter.layers(next(iter(backbone.denoisers.values())))
    expected = {key: layer.get_delta_weight("default").clone() for key, layer in layers.items()}
    backbone.export(tmp_path)
    for key in load_file(tmp_path / comfyui.FILE):
        patterns = [pattern + FACTS["suffixes"] for pattern in KNOWN[name]]
        assert any(re.fullmatch(pattern, key) for pattern in patterns), key
    covered = set()
    for key, delta in deltas(tmp_path / comfyui.FILE).items():
        parts = sources(key, list(layers))
        covered |= set(parts)
        whole = torch.cat([expected[part] for part in parts])
        torch.testing.assert_close(delta[: len(whole)], whole, atol=1e-6, rtol=1e-5)
        assert not bool(delta[len(whole) :].any())  # the MLP of a single block is left alone
    assert covered == set(layers)


@pytest.mark.parametrize("name", UNKNOWN)
def test_no_file_is_written_where_the_names_are_not_known(name: str, tmp_path: Path) -> None:
    assert UNKNOWN == ["cogvideox", "mochi"]
    adapted(name).export(tmp_path)
    assert not (tmp_path / comfyui.FILE).exists()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_file_of_diffusers_tells_a_strength_of_one(name: str, tmp_path: Path) -> None:
    backbone = adapted(name)
    layers = adapter.layers(next(iter(backbone.denoisers.values())))
    before = {key: layer.get_delta_weight("default").clone() for key, layer in layers.items()}
    backbone.export(tmp_path)
    again = family(name).load(PipelineSettings(model="miniature"), CPU)
    again.restore(tmp_path)
    for key, layer in adapter.layers(next(iter(again.denoisers.values()))).items():
        assert layer.scaling["default"] == 1
        torch.testing.assert_close(layer.get_delta_weight("default"), before[key])


def test_a_layer_that_no_rule_names_leaves_no_half_file() -> None:
    pair = comfyui.Pair(torch.zeros(1, 2), torch.zeros(2, 1))
    assert comfyui.renamed({"other": pair}, {r"blocks\.(\d)": r"\1"}, "x.") is None
