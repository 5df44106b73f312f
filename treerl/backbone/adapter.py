"""A LoRA on any module through peft: put on, written as diffusers reads it, read back strictly."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from treerl.backbone.files import (
    boundary,
    listed,
    read_tensors,
    refuse_no_floats,
    refuse_other_tensors,
    write_tensors,
)
from treerl.errors import InputError, printable

if TYPE_CHECKING:  # peft is imported where a LoRA is put on: it takes a second
    from peft.tuners.lora import LoraLayer

NAME = "default"  # of the adapter within the module
FILE = "pytorch_lora_weights.safetensors"
_METADATA = "lora_adapter_metadata"  # diffusers' key in the header of the file
_ENDS = (".lora_A.weight", ".lora_B.weight")
# peft's settings under which a LoRA is something else than alpha / rank · B A
_PLAIN: dict[str, Any] = {
    "rank_pattern": {},
    "alpha_pattern": {},
    "use_rslora": False,
    "use_dora": False,
    "use_qalora": False,
    "lora_bias": False,
    "bias": "none",
    "modules_to_save": None,
    "layer_replication": None,
    "fan_in_fan_out": False,
}


class AsInput(nn.Linear):
    """A linear layer that computes in its input's dtype, whatever that of its weight."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.to(input.dtype))


def compute_as_input(layer: "LoraLayer") -> None:
    """Let a linear layer's LoRA compute in the model's dtype; its matrices stay in float32.

    In float32 a tenth of a model's products would run outside the fast path of its device.
    """
    matrices = [*layer.lora_A.values(), *layer.lora_B.values()]
    if all(type(matrix) is nn.Linear and matrix.bias is None for matrix in matrices):
        for matrix in matrices:
            matrix.__class__ = AsInput
        layer.cast_input_dtype_enabled = False


def layers(module: nn.Module) -> "dict[str, LoraLayer]":
    """The adapted layers of a module by name."""
    if "peft" not in sys.modules:  # so that there is none
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: part for name, part in module.named_modules() if isinstance(part, LoraLayer)}


def adapted(module: nn.Module) -> bool:
    """Whether a module carries our LoRA."""
    return any(NAME in layer.r for layer in layers(module).values())


def strength(module: nn.Module) -> tuple[int, float]:
    """The rank and alpha of a module's LoRA."""
    layer = next(iter(layers(module).values()))
    return layer.r[NAME], layer.lora_alpha[NAME]


def write(module: nn.Module, prefix: str, folder: Path) -> None:
    """The LoRA as `load_lora_weights` of diffusers reads it, with its rank and alpha."""
    from peft import get_peft_model_state_dict

    rank, alpha = strength(module)
    write_file(get_peft_model_state_dict(module, adapter_name=NAME), prefix, rank, alpha, folder)


def write_file(
    tensors: dict[str, Tensor], prefix: str, rank: int, alpha: float, folder: Path
) -> None:
    """LoRA matrices by name within the module, under the module's name in the pipeline."""
    targets = sorted({name.removesuffix(_ENDS[0]).removesuffix(_ENDS[1]) for name in tensors})
    about = {"r": rank, "lora_alpha": alpha, "target_modules": targets}
    metadata = json.dumps({f"{prefix}.{key}": value for key, value in about.items()})
    named = {f"{prefix}.{name}": tensor.contiguous() for name, tensor in tensors.items()}
    write_tensors(named, folder / FILE, {_METADATA: metadata})


def read(module: nn.Module, prefix: str, path: Path) -> None:
    """Put on the LoRA of a file, in float32, at the strength that it was trained with.

    `InputError` names what is in the way: another naming, a layer that the module lacks, half of a
    pair, a shape, or a strength that the file does not tell.
    """
    what = f"backbone.adapter: {printable(path.parent)} does not fit this model"
    tensors, metadata = read_tensors(path, what)
    refuse_no_floats(what, {name: str(x.dtype) for name, x in tensors.items() if not _float(x)})
    matrices = _named(tensors, prefix, what)
    rank, alpha = _strength(metadata, prefix, matrices, what)
    names = sorted({name.removesuffix(_ENDS[0]).removesuffix(_ENDS[1]) for name in matrices})
    _refuse_halves(module, names, matrices, what)
    if not adapted(module):
        with boundary(what):
            _put_on(module, names, rank, alpha, matrices)
    _fill(module, matrices, rank, alpha, what)


def _put_on(
    module: nn.Module, names: list[str], rank: int, alpha: float, matrices: dict[str, Tensor]
) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    inject_adapter_in_model(config, module, NAME, state_dict=matrices)


def _named(tensors: dict[str, Tensor], prefix: str, what: str) -> dict[str, Tensor]:
    """The matrices by name within the module; every tensor of the file is one of them."""
    start = f"{prefix}."
    foreign = [name for name in tensors if not name.startswith(start) or not name.endswith(_ENDS)]
    if foreign or not tensors:
        raise InputError(
            f"{what}: expected tensors named {start}LAYER.lora_A.weight and .lora_B.weight, as "
            f"diffusers saves them, got {listed(foreign) or 'none'}"
        )
    return {name.removeprefix(start): tensor for name, tensor in tensors.items()}


def _strength(
    metadata: dict[str, str], prefix: str, matrices: dict[str, Tensor], what: str
) -> tuple[int, float]:
    """Rank and alpha as the header tells them; the matrices must have that rank."""
    about: Any = {}
    with boundary(f"{what}: its metadata"):
        about = json.loads(metadata.get(_METADATA, "{}"))
    if not isinstance(about, dict):
        raise InputError(f"{what}: its metadata is not a mapping")
    about = {key.removeprefix(f"{prefix}."): value for key, value in about.items()}
    rank = about.get("r")
    alpha = about.get("lora_alpha")
    if rank is None or alpha is None:
        raise InputError(
            f"{what}: its metadata tells no r and lora_alpha, so that its strength is not known"
        )
    number = type(alpha) in (int, float) and math.isfinite(alpha)
    if type(rank) is not int or not number or alpha <= 0:
        raise InputError(
            f"{what}: r and lora_alpha: expected numbers above 0, got {rank!r:.40}, {alpha!r:.40}"
        )
    for key, plain in _PLAIN.items():
        if about.get(key, plain) != plain and about[key]:
            raise InputError(f"{what}: {key}: expected {plain!r}, got {printable(about[key], 60)}")
    wrong = []
    for name, tensor in matrices.items():
        side = 0 if name.endswith(_ENDS[0]) else 1
        if tensor.dim() < 2 or tensor.shape[side] != rank:
            wrong.append(f"{name} {list(tensor.shape)}")
    if wrong:
        raise InputError(f"{what}: expected matrices of rank {rank}, got {listed(wrong)}")
    return rank, float(alpha)


def _refuse_halves(
    module: nn.Module, names: list[str], matrices: dict[str, Tensor], what: str
) -> None:
    known = {name.replace(".base_layer", "") for name, _ in module.named_modules()}
    foreign = [name for name in names if name not in known]
    halves = [name + end for name in names for end in _ENDS if name + end not in matrices]
    if foreign:
        raise InputError(f"{what}: {type(module).__name__} has no layers {listed(foreign)}")
    if halves:
        raise InputError(f"{what}: it lacks {listed(halves)}")
    bad = [name for name, tensor in matrices.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise InputError(f"{what}: not finite: {listed(bad)}")


def _fill(
    module: nn.Module, matrices: dict[str, Tensor], rank: int, alpha: float, what: str
) -> None:
    """Every matrix into its place in float32; the places are then all filled."""
    places = {}
    for name, layer in layers(module).items():
        places[name + _ENDS[0]] = layer.lora_A[NAME].weight
        places[name + _ENDS[1]] = layer.lora_B[NAME].weight
    missing = [name for name in places if name not in matrices]
    refuse_other_tensors(
        what,
        {name: tuple(place.shape) for name, place in places.items()},
        {name: tuple(tensor.shape) for name, tensor in matrices.items()},
        missing,
    )
    if strength(module) != (rank, alpha):
        raise InputError(f"{what}: expected rank and alpha {strength(module)}, got {(rank, alpha)}")
    for name, place in places.items():
        place.data = matrices[name].to(place.device, torch.float32)


def _float(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point
