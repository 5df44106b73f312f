"""A LoRA in the names that ComfyUI knows: `comfyui.safetensors` beside the file of diffusers.

ComfyUI multiplies `lora_up` `[out, r]` by `lora_down` `[r, in]` and by alpha / r; alpha is r here,
so that a loader that does not read it applies the same. tests/data/comfyui_keys.yaml lists the
names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from treerl.backbone.files import write_tensors

FILE = "comfyui.safetensors"


@dataclass(frozen=True)
class Pair:
    """The two matrices of a layer; what is added to its weight is up · down."""

    down: Tensor  # [r, in]
    up: Tensor  # [out, r]


Layers = Mapping[str, Pair]  # by the name of the layer


def write(layers: Layers, folder: Path) -> None:
    """The layers, under ComfyUI's names already, as one file."""
    tensors: dict[str, Tensor] = {}
    for name, pair in layers.items():
        tensors[f"{name}.lora_down.weight"] = pair.down.contiguous()
        tensors[f"{name}.lora_up.weight"] = pair.up.contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(float(len(pair.down)))
    write_tensors(tensors, folder / FILE)


def prefixed(layers: Layers, prefix: str) -> dict[str, Pair]:
    """The names of diffusers behind a prefix."""
    return {prefix + name: pair for name, pair in layers.items()}


def underscored(layers: Layers) -> dict[str, Pair]:
    """The names of diffusers as kohya's scripts spell those of a U-Net."""
    return {"lora_unet_" + name.replace(".", "_"): pair for name, pair in layers.items()}


def renamed(layers: Layers, rules: Mapping[str, str], prefix: str) -> dict[str, Pair] | None:
    """The names after the first rule (pattern: replacement) that fits; None when none fits one."""
    names: dict[str, Pair] = {}
    for name, pair in layers.items():
        for pattern, replacement in rules.items():
            match = re.fullmatch(pattern, name)
            if match:
                names[prefix + match.expand(replacement)] = pair
                break
        else:
            return None
    return names


def fused(parts: Sequence[Pair], rest: int = 0) -> Pair:
    """One layer that has the outputs of several over one input, and `rest` outputs left alone.

    Of q, k, v with ranks r the fused rank is 3 r:

        down [3 r, in]       = q.down over k.down over v.down
        up   [3 out, 3 r]    = q.up, k.up, v.up along the diagonal
    """
    down = torch.cat([part.down for part in parts])
    up: Tensor = torch.block_diag(*[part.up for part in parts])  # type: ignore[no-untyped-call]
    if rest:
        up = torch.cat([up, up.new_zeros(rest, up.shape[1])])
    return Pair(down, up)
