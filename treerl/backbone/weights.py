"""What was trained of any modules as files: written, read back strictly, exported."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from treerl.backbone import adapter
from treerl.backbone.files import read_tensors, refuse_other_tensors, write_tensors
from treerl.errors import InputError, StorageError, first_line, printable

FILE = "model.safetensors"
DESCRIPTION = "describe.json"


Write = Callable[[nn.Module, Path], None]  # all weights of a module into a folder


def save(modules: Mapping[str, nn.Module], folder: Path, write: "Write | None" = None) -> None:
    """The LoRA of a module that has one, and the weights of every other.

    The first module's LoRA lies in the folder itself, where diffusers looks for it; the others',
    and all whole weights, in a folder of the module's name.
    """
    first = next(iter(modules))
    for name, module in modules.items():
        if adapter.adapted(module):
            adapter.write(module, first, folder if name == first else folder / name)
        else:
            (write or write_weights)(module, folder / name)


def restore(modules: Mapping[str, nn.Module], folder: Path) -> None:
    """Load what `save` wrote; `InputError` names what does not fit."""
    first = next(iter(modules))
    for name, module in modules.items():
        place = folder if name == first else folder / name
        if (place / adapter.FILE).is_file():
            adapter.read(module, first, place / adapter.FILE)
        elif any((folder / name).glob("*.safetensors")):
            read(module, folder / name)
        else:
            raise InputError(
                f"backbone.adapter: {printable(folder)} has neither {adapter.FILE} nor the weights "
                f"of {name}"
            )


def export(modules: Mapping[str, nn.Module], description: dict[str, Any], folder: Path) -> None:
    """What was trained, and a description of it."""
    save(modules, folder)
    text = json.dumps(description, indent=2) + "\n"
    try:
        (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{printable(folder)}: {first_line(error)}") from error


def write_weights(module: nn.Module, folder: Path) -> None:
    """All tensors of a module as one file; of tied ones the first."""
    tensors: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in stored or tensor.numel() == 0:
            tensors[name] = tensor.detach().contiguous()
            stored.add(tensor.data_ptr())
    write_tensors(tensors, folder / FILE)


def read(module: nn.Module, folder: Path) -> None:
    """Fill a module from the safetensors files of a folder: every tensor, and no other."""
    what = f"backbone.adapter: {printable(folder)} does not fit this model"
    wanted = module.state_dict()
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= read_tensors(path, what)[0]
    # a tied tensor is filled under its other name
    owners = _owners(module)
    filled = {owners.get(name) for name in tensors if name in wanted}
    refuse_other_tensors(
        what,
        {name: tuple(tensor.shape) for name, tensor in wanted.items()},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        [name for name in wanted if owners.get(name) not in filled],
    )
    with torch.no_grad():
        for name, tensor in tensors.items():
            wanted[name].copy_(tensor)


def _owners(module: nn.Module) -> dict[str, int]:
    """Which tensor each name of a module stands for: two names of a tied one stand for the same."""
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    return {name: id(tensor) for name, tensor in named}
