"""Weights of open_clip's towers as transformers' `CLIPModel` names them."""

import re

import torch
from torch import Tensor

_BLOCK = {  # inside one block of either tower
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_REST = {  # outside the blocks
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TURNED = {
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
}  # used from the right
_PLACE = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.?(weight|bias)$")


def remapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under transformers' names; the joint projection of an attention becomes three."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in _REST:
            renamed[_REST[name]] = tensor
        elif name in _TURNED:
            renamed[_TURNED[name]] = tensor.T.contiguous()
        elif block := _PLACE.match(name):
            renamed |= _within(block, tensor)
        elif name != "attn_mask":  # a constant that some files keep
            raise KeyError(name)
    return renamed


def _within(block: re.Match[str], tensor: Tensor) -> dict[str, Tensor]:
    tower = "vision_model" if block[1] else "text_model"
    layer = f"{tower}.encoder.layers.{block[2]}"
    inner, kind = block[3].rstrip("._"), block[4]
    if inner == "attn.in_proj":
        parts = zip(("q_proj", "k_proj", "v_proj"), torch.chunk(tensor, 3), strict=True)
        return {f"{layer}.self_attn.{name}.{kind}": part.contiguous() for name, part in parts}
    return {f"{layer}.{_BLOCK[inner]}.{kind}": tensor}
