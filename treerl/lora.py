"""The trained weights: a LoRA through peft or the whole denoiser; making it, switching it off, saving and loading."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn

from treerl.backbone import Backbone
from treerl.config import Train
from treerl.errors import InputError

ADAPTER = "default"
LORA_FILE = "pytorch_lora_weights.safetensors"


def attach(backbone: Backbone, train: Train, adapter: Path | None, seed: int) -> list[nn.Parameter]:
    """Make the denoiser trainable as `train.weights` says, starting from `adapter` if given; the trained parameters."""
    module: Any = backbone.module
    if adapter is not None:
        restore(backbone, adapter)
    if train.weights == "full":
        if ADAPTER in getattr(module, "peft_config", {}):
            raise InputError(f"train.weights: expected lora, as backbone.adapter {adapter} is a LoRA, got full")
        module.requires_grad_(True)
    elif ADAPTER not in getattr(module, "peft_config", {}):
        _add(module, backbone.lora_targets, train, seed)
    if train.weights == "lora":
        for name, parameter in module.named_parameters():
            parameter.requires_grad_("lora_" in name)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()  # the optimizer needs its master weights in full precision
    return trained


@contextmanager
def disabled(backbone: Backbone) -> Iterator[None]:
    """The reference policy: the denoiser as it was before the LoRA."""
    module: Any = backbone.module
    module.disable_adapters()
    try:
        yield
    finally:
        module.enable_adapters()


def save(backbone: Backbone, folder: Path) -> None:
    """Write what was trained: a LoRA that diffusers' `load_lora_weights` reads, or the denoiser's `save_pretrained`."""
    module: Any = backbone.module
    name = _component(backbone)
    if ADAPTER not in getattr(module, "peft_config", {}):
        module.save_pretrained(folder / name)
        return
    layers = {key: tensor.contiguous() for key, tensor in get_peft_model_state_dict(module).items()}
    about = module.peft_config[ADAPTER].to_dict()
    backbone.pipeline.save_lora_weights(
        folder, **{f"{name}_lora_layers": layers, f"{name}_lora_adapter_metadata": about}
    )


def restore(backbone: Backbone, folder: Path) -> None:
    """Load what `save` wrote; `InputError` when the folder holds none or one of another model."""
    name = _component(backbone)
    if not (folder / LORA_FILE).is_file() and not (folder / name / "config.json").is_file():
        raise InputError(f"backbone.adapter: {folder} has neither {LORA_FILE} nor a {name} folder")
    try:
        if (folder / LORA_FILE).is_file():
            backbone.pipeline.load_lora_weights(folder, weight_name=LORA_FILE, adapter_name=ADAPTER)
        else:
            module: Any = backbone.module
            module.load_state_dict(type(module).from_pretrained(folder / name).state_dict())
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"backbone.adapter: {folder} does not fit this model: {reason}") from error


def _add(module: Any, targets: tuple[str, ...], train: Train, seed: int) -> None:
    config = LoraConfig(
        r=train.rank, lora_alpha=train.alpha, target_modules=list(targets), init_lora_weights="gaussian"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # peft draws from the global generator; the fork gives it back as it was
        module.add_adapter(config, adapter_name=ADAPTER)
    if not any("lora_" in name for name, _ in module.named_parameters()):
        raise InputError(f"no layer of {type(module).__name__} matches the LoRA targets {', '.join(targets)}")


def _component(backbone: Backbone) -> str:
    parts = backbone.pipeline.components.items()
    return next(str(name) for name, component in parts if component is backbone.module)
