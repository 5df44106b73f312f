"""What others load: a LoRA at full strength for diffusers and ComfyUI, or a whole pipeline."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from treerl.backbone import adapter, comfyui, loading
from treerl.errors import InputError

if TYPE_CHECKING:
    from treerl.backbone.parts import PipelineParts


def check(backbone: "PipelineParts") -> None:
    """`InputError` for a model that nobody else has."""
    if backbone.settings.model in loading.MADE:
        raise InputError(
            f"export: the run was trained on random weights ({backbone.settings.model}), which "
            "are nobody's model"
        )
    if backbone.settings.quantize is not None and not _loads_lora(backbone.pipeline):
        raise InputError(
            f"export: {backbone.pipeline_class} loads no LoRA, so it goes into the weights, and "
            f"those are of few bits (backbone.quantize: {backbone.settings.quantize}); set it to "
            "null in the run's config.yaml, and export again"
        )


def as_lora(backbone: "PipelineParts") -> bool:
    """Whether it is exported as a LoRA: it has one, and its pipeline can load one."""
    adapted = any(map(adapter.adapted, backbone.denoisers.values()))
    return adapted and _loads_lora(backbone.pipeline)


def _loads_lora(pipeline: Any) -> bool:
    from diffusers.loaders.lora_base import LoraBaseMixin  # all of its models: two seconds

    return isinstance(pipeline, LoraBaseMixin)


def write(backbone: "PipelineParts", folder: Path) -> None:
    """The LoRA with its strength folded in, or the pipeline with what was trained in it."""
    if not as_lora(backbone):
        for module in backbone.denoisers.values():
            _merge(module)
        _write_pipeline(backbone, folder)
        return
    first = next(iter(backbone.denoisers))
    for name, module in backbone.denoisers.items():
        if not adapter.adapted(module):
            continue
        place = folder if name == first else folder / name
        _fold(module)
        adapter.write(module, first, place)
        layers = backbone.comfyui_layers(_pairs(module))
        if layers is not None:
            comfyui.write(layers, place)
        _cast(module, getattr(torch, backbone.settings.dtype))


def _write_pipeline(backbone: "PipelineParts", folder: Path) -> None:
    configured = backbone.pipeline.scheduler
    backbone.pipeline.scheduler = backbone.shipped_scheduler
    try:
        loading.save_pretrained(backbone.pipeline, folder)
    finally:
        backbone.pipeline.scheduler = configured


def _fold(module: nn.Module) -> None:
    """B becomes alpha / rank · B, and alpha the rank: the strength of every loader is then 1."""
    with torch.no_grad():
        for layer in adapter.layers(module).values():
            layer.lora_B[adapter.NAME].weight.mul_(layer.scaling[adapter.NAME])
            layer.lora_alpha[adapter.NAME] = layer.r[adapter.NAME]
            layer.scaling[adapter.NAME] = 1.0


def _pairs(module: nn.Module) -> dict[str, comfyui.Pair]:
    pairs = {}
    for name, layer in adapter.layers(module).items():
        down = layer.lora_A[adapter.NAME].weight.detach().cpu()
        up = layer.lora_B[adapter.NAME].weight.detach().cpu()
        pairs[name] = comfyui.Pair(down, up)
    return pairs


def _cast(module: nn.Module, standard: torch.dtype) -> None:
    """The LoRA in the dtype of the layer that it adapts, as other programs run it."""
    for layer in adapter.layers(module).values():
        dtype = layer.get_base_layer().weight.dtype
        dtype = dtype if dtype.is_floating_point else standard  # of a quantized layer
        layer.lora_A[adapter.NAME].to(dtype)
        layer.lora_B[adapter.NAME].to(dtype)


def _merge(module: nn.Module) -> None:
    """The LoRA into the weights, and the layers as they were before it."""
    for name, layer in adapter.layers(module).items():
        base: Any = layer.get_base_layer()
        with torch.no_grad():
            base.weight.add_(layer.get_delta_weight(adapter.NAME).to(base.weight.dtype))
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, base)
