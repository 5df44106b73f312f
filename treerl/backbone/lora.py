"""The trained weights: a LoRA through peft or the whole denoiser; making it, switching it off, saving and loading."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn

from treerl.backbone.contract import Backbone
from treerl.config.schema import Train
from treerl.errors import InputError

ADAPTER = "default"
LORA_FILE = "pytorch_lora_weights.safetensors"


def attach(backbone: Backbone, train: Train, adapter: Path | None, seed: int) -> list[nn.Parameter]:
    """Make the denoiser trainable as `train.weights` says, starting from `adapter` if given; the trained parameters."""
    if adapter is not None:
        restore(backbone, adapter)
    if train.weights == "full" and any(map(adapted, backbone.denoisers.values())):
        raise InputError(
            f"train.weights: expected lora, as backbone.adapter {adapter} is a LoRA, got full"
        )
    for module in backbone.denoisers.values():
        _prepare(module, backbone.lora_targets, train, seed)
    modules = backbone.denoisers.values()
    trained = [
        parameter
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    for parameter in trained:
        parameter.data = (
            parameter.data.float()
        )  # the optimizer needs its master weights in full precision
    return trained


@contextmanager
def disabled(backbone: Backbone) -> Iterator[None]:
    """The reference policy: the denoiser as it was before the LoRA."""
    modules: list[Any] = list(backbone.denoisers.values())
    for module in modules:
        module.disable_adapters()
    try:
        yield
    finally:
        for module in modules:
            module.enable_adapters()


def adapted(module: nn.Module) -> bool:
    """Whether a denoiser carries our LoRA."""
    return ADAPTER in getattr(module, "peft_config", {})


def save(backbone: Backbone, folder: Path) -> None:
    """Write what was trained: a LoRA that diffusers' `load_lora_weights` reads, or the denoiser's `save_pretrained`.

    A family with two denoisers keeps the second one's LoRA in a folder of its name.
    """
    for name, module in backbone.denoisers.items():
        if adapted(module):
            _save_lora(
                backbone.pipeline,
                _folder(backbone, folder, name),
                module,
                next(iter(backbone.denoisers)),
            )
        else:
            module.save_pretrained(folder / name)  # type: ignore[operator]


def restore(backbone: Backbone, folder: Path) -> None:
    """Load what `save` wrote; `InputError` when the folder holds none or one of another model."""
    for name, module in backbone.denoisers.items():
        own, into = _folder(backbone, folder, name), {}
        if own != folder:
            into = {f"load_into_{name}": True}
        if not (own / LORA_FILE).is_file() and not (folder / name / "config.json").is_file():
            raise InputError(
                f"backbone.adapter: {folder} has neither {LORA_FILE} nor a {name} folder"
            )
        try:
            if (own / LORA_FILE).is_file():
                backbone.pipeline.load_lora_weights(
                    own, weight_name=LORA_FILE, adapter_name=ADAPTER, **into
                )
            else:
                module.load_state_dict(type(module).from_pretrained(folder / name).state_dict())  # type: ignore[attr-defined]
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"backbone.adapter: {folder} does not fit this model: {reason}"
            ) from error


def _prepare(module: Any, targets: tuple[str, ...], train: Train, seed: int) -> None:
    if train.weights == "full":
        module.float().requires_grad_(True)  # run under autocast where another dtype was asked for
    else:
        if not adapted(module):
            _add(module, targets, train, seed)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_("lora_" in name)
    if train.checkpointing:
        try:
            module.enable_gradient_checkpointing()
        except ValueError as error:
            raise InputError(
                f"train.checkpointing: expected false, as {type(module).__name__} has none"
            ) from error


def _add(module: Any, targets: tuple[str, ...], train: Train, seed: int) -> None:
    config = LoraConfig(
        r=train.rank,
        lora_alpha=train.alpha,
        target_modules=list(targets),
        init_lora_weights="gaussian",
    )
    with torch.random.fork_rng():
        torch.manual_seed(
            seed
        )  # peft draws from the global generator; the fork gives it back as it was
        try:
            module.add_adapter(config, adapter_name=ADAPTER)
        except ValueError as error:
            if "not found in the base model" not in str(error):
                raise
    if not any("lora_" in name for name, _ in module.named_parameters()):
        raise InputError(
            f"no layer of {type(module).__name__} matches the LoRA targets {', '.join(targets)}"
        )


def _save_lora(pipeline: Any, folder: Path, module: Any, name: str) -> None:
    layers = {key: tensor.contiguous() for key, tensor in get_peft_model_state_dict(module).items()}
    about = module.peft_config[ADAPTER].to_dict()
    pipeline.save_lora_weights(
        folder, **{f"{name}_lora_layers": layers, f"{name}_lora_adapter_metadata": about}
    )


def _folder(backbone: Backbone, folder: Path, name: str) -> Path:
    return folder if name == next(iter(backbone.denoisers)) else folder / name
