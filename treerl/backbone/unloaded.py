"""A model that is not loaded: its networks on torch's meta device, which has no memory."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from torch import nn

from treerl.backbone import components, loading
from treerl.backbone.contract import Footprint
from treerl.backbone.files import boundary
from treerl.backbone.quantized import saved_bytes
from treerl.backbone.settings import PipelineSettings

if TYPE_CHECKING:
    from treerl.backbone.parts import PipelineParts

META = torch.device("meta")


def footprint(family: "type[PipelineParts]", settings: PipelineSettings) -> Footprint:
    """The latent and the weights of a model, from its folder or its published architecture."""
    backbone = unloaded(family, replace(settings, tiny_vae=None))
    weights = sum(map(weight_bytes, backbone.modules.values()))
    if settings.quantize is not None:
        weights -= saved_bytes(backbone.denoisers.values(), settings.quantize)
    return Footprint(backbone.shape, weights, 1 if family.guidance_embedded else 2)


def unloaded(family: "type[PipelineParts]", settings: PipelineSettings) -> "PipelineParts":
    """The model that the settings name, or where it is not at hand its published architecture.

    Nothing is loaded: the networks have shapes alone, and no layer is quantized.
    """
    where = (
        Path(loading.source_of(family, settings)) if settings.model not in loading.MADE else None
    )
    plain = replace(settings, offload_text_encoders=False, tiny_vae=None, vae_slicing=False)
    plain = replace(plain, vae_tiling=False, quantize=None)
    if where is not None and where.is_dir():
        what = loading.cannot(family, settings)
        with boundary(what):
            backbone = family(loading.on_meta(family, settings, where, what), plain, META)
    else:
        size = "miniature" if settings.model == "miniature" else "random"
        backbone = family.load(replace(plain, model=size), META)
    if settings.tiny_vae is not None:
        backbone.pipeline.vae = _tiny_vae(settings.tiny_vae, backbone.pipeline.vae)
    loading.decode_in_parts(backbone.pipeline.vae, settings)
    return backbone


def weight_bytes(module: nn.Module) -> int:
    """Bytes of a network's parameters."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())


def _tiny_vae(source: str, vae: Any) -> nn.Module:
    """The shapes of a tiny autoencoder: all published ones differ in their latents alone."""
    if Path(source).is_dir():
        tiny = components.on_meta(diffusers.AutoencoderTiny, Path(source), vae.dtype)
    else:
        with META:
            tiny = diffusers.AutoencoderTiny(latent_channels=vae.config.latent_channels)
    network: nn.Module = tiny.to(vae.dtype).requires_grad_(False).eval()
    return network
