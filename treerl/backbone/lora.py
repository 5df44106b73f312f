"""What trains: a LoRA on the denoisers or all their weights, and the model as training started."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from treerl.backbone import adapter, capacity
from treerl.backbone.contract import Backbone, Start
from treerl.backbone.merged import merged
from treerl.engine.weight_sets import WeightSet, copies, exchanged
from treerl.errors import InputError, first_line


@dataclass(frozen=True)
class Trainable:
    """What `train.*` says about the weights that learn."""

    mode: Literal["lora", "full"] = "lora"
    rank: int = 16
    alpha: float = 32.0
    gradient_checkpointing: bool = False
    merge: bool = True  # fold the LoRA into its layers where no density is asked for


@runtime_checkable
class Checkpointing(Protocol):
    """A module that can compute its activations anew in the backward pass, as diffusers' do."""

    def enable_gradient_checkpointing(self) -> None: ...


def attach(
    backbone: Backbone,
    trainable: Trainable,
    start: Path | None,
    seed: int,
    keep_reference: bool = False,
    cut: Callable[[nn.Module], None] | None = None,
    teacher: Path | None = None,
) -> list[nn.Parameter]:
    """Make the denoisers trainable, from the checkpoint `start` if there is one; what trains.

    The parameters are float32, as the optimizer needs them. `reference` works afterwards where a
    fresh LoRA is trained; for all else `keep_reference` keeps a copy of the weights for it. `cut`
    leaves this process a part of every weight of a module. `teacher` is the folder of another run's
    weights, for the context of that name.
    """
    modules = list(backbone.denoisers.values())
    if not modules:
        raise InputError(f"backbone {type(backbone).__name__}: denoisers: expected some, got none")
    if trainable.mode == "full":
        for module in modules:
            module.float()  # run under autocast where another dtype was wanted
    if start is not None:
        backbone.restore(start)
        _refuse_other_kind(modules, trainable, start)
    for module in modules:
        _prepare(module, backbone, trainable, seed)
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if cut is not None:
            cut(module)
    parameters = []
    for module in modules:
        parameters += [parameter for parameter in module.parameters() if parameter.requires_grad]
    if trainable.mode == "lora" and trainable.merge:
        backbone.faster = partial(merged, modules)
    kept = None
    if keep_reference and not (trainable.mode == "lora" and start is None):
        kept = copies(parameters)
    taught = None if teacher is None else _taught(backbone, parameters, trainable, teacher, cut)
    bare = trainable.mode == "lora" and start is None
    backbone.start = Start(tuple(parameters), kept, bare, taught)
    return parameters


def named(backbone: Backbone, parameters: Sequence[nn.Parameter]) -> list[tuple[str, nn.Parameter]]:
    """The parameters with their names within the denoisers, as an optimizer takes them."""
    names = {}
    for title, module in backbone.denoisers.items():
        for name, parameter in module.named_parameters():
            names[parameter] = f"{title}.{name}"
    return [(names[parameter], parameter) for parameter in parameters]


@contextmanager
def reference(backbone: Backbone) -> Iterator[None]:
    """The model as training started: without its LoRA, or with the weights that it began from."""
    start = backbone.start
    if start is None:
        raise RuntimeError("reference: attach() comes first")
    if start.bare:
        with _disabled(backbone):
            yield
        return
    if start.copies is None:
        raise RuntimeError("reference: attach(..., keep_reference=True) keeps it")
    with exchanged(start.parameters, start.copies):
        yield


def weight_sets(backbone: Backbone) -> dict[str, WeightSet]:
    """The weights by name that objectives may ask for, beside those that a trainer keeps."""
    return {"start": partial(reference, backbone), "teacher": partial(teacher, backbone)}


def teacher(backbone: Backbone) -> AbstractContextManager[None]:
    """The model with the weights of `attach(..., teacher=folder)`."""
    start = backbone.start
    if start is None or start.teacher is None:
        raise InputError("train.teacher: expected the folder of a trained model, got none")
    return exchanged(start.parameters, start.teacher)


def _taught(
    backbone: Backbone,
    parameters: Sequence[nn.Parameter],
    trainable: Trainable,
    folder: Path,
    cut: Callable[[nn.Module], None] | None,
) -> tuple[Tensor, ...]:
    """What another run has made of the parameters, which keep their values."""
    if cut is not None:
        raise InputError("train.teacher: expected null with parallel.shard, got a folder")
    if trainable.mode == "full" and (folder / adapter.FILE).is_file():
        raise InputError(f"train.teacher: expected whole weights, got a LoRA in {folder}")
    before = copies(parameters)
    try:
        backbone.restore(folder)
    except InputError as error:
        raise InputError(str(error).replace("backbone.adapter", "train.teacher")) from error
    taught = copies(parameters)
    for parameter, value in zip(parameters, before, strict=True):
        parameter.data.copy_(value)
    return taught


@contextmanager
def _disabled(backbone: Backbone) -> Iterator[None]:
    """The denoisers without their LoRA."""
    layers = []
    for module in backbone.denoisers.values():
        layers += list(adapter.layers(module).values())
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _refuse_other_kind(modules: list[nn.Module], trainable: Trainable, start: Path) -> None:
    """A checkpoint of one kind is not trained on as the other: what is saved would lack a part."""
    if trainable.mode == "full" and any(map(adapter.adapted, modules)):
        raise InputError(
            f"train.trainable: expected lora, as backbone.adapter {start} is a LoRA, got full"
        )
    if trainable.mode == "lora" and not all(map(adapter.adapted, modules)):
        raise InputError(
            f"train.trainable: expected full, as backbone.adapter {start} holds whole weights, "
            "got lora"
        )


def _prepare(module: nn.Module, backbone: Backbone, trainable: Trainable, seed: int) -> None:
    if trainable.mode == "full":
        module.requires_grad_(True)
    else:
        if not adapter.adapted(module):
            _add(module, backbone.lora_targets, trainable, seed)
        for layer in adapter.layers(module).values():
            adapter.compute_as_input(layer)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_("lora_" in name)
    if trainable.gradient_checkpointing:
        _checkpoint(module)


def _checkpoint(module: nn.Module) -> None:
    why = f"train.gradient_checkpointing: expected false, as {type(module).__name__} has none"
    if not isinstance(module, Checkpointing):
        raise InputError(why)
    try:
        module.enable_gradient_checkpointing()
    except ValueError as error:  # a model of diffusers that was not written for it
        raise InputError(why) from error


def _add(module: nn.Module, targets: tuple[str, ...], trainable: Trainable, seed: int) -> None:
    from peft import LoraConfig, inject_adapter_in_model  # a second, which full weights need not

    config = LoraConfig(
        r=trainable.rank,
        lora_alpha=trainable.alpha,
        target_modules=list(targets),
        init_lora_weights="gaussian",
    )
    kind = type(module).__name__
    _refuse_too_large(module, targets, trainable.rank)
    with torch.random.fork_rng():  # peft draws from the global generator
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, module, adapter.NAME)
        except ValueError as error:
            if "not found in the base model" not in str(error):
                raise InputError(
                    f"lora_targets: a layer of {kind} takes no LoRA; name linear layers, or set "
                    f"train.trainable=full ({first_line(error)})"
                ) from error
    if not adapter.adapted(module):
        raise InputError(f"no layer of {kind} matches the LoRA targets {', '.join(targets)}")


def _refuse_too_large(module: nn.Module, targets: tuple[str, ...], rank: int) -> None:
    """`InputError` for a rank whose matrices the device could never hold."""
    weights = 0
    device = torch.device("cpu")
    for name, layer in module.named_modules():
        aimed = any(name == target or name.endswith(f".{target}") for target in targets)
        if aimed and isinstance(layer, nn.Linear):
            weights += rank * (layer.in_features + layer.out_features)
            device = layer.weight.device
    # float32, and as much again for the gradient and each of Adam's two moments
    capacity.refuse_too_large(f"train.lora_rank: a LoRA of rank {rank}", 16 * weights, device)
