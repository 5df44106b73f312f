"""Files of learned rewards: read as data; every tensor that a network wants must be there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from treerl.backbone import hub
from treerl.backbone.files import refuse_no_file, refuse_other_model
from treerl.errors import InputError, printable, reason

N = TypeVar("N", bound=nn.Module)


def tensors(path: Path, named: str) -> dict[str, Tensor]:
    """What a .safetensors file holds, or a .pt file of tensors; nothing else is unpickled."""
    refuse_no_file(path, f"{named} cannot be read from {printable(path.parent)}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # the published files leave no choice
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{named} cannot be read from {path}: {_cause(error)}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    plain = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
        for name, value in state.items()
    )
    if not plain:
        raise InputError(f"{named} cannot be read from {path}: expected tensors by name")
    return dict(state)


def fill(make: Callable[[], N], state: dict[str, Tensor], named: str) -> N:
    """The network with exactly these tensors: none left over, none missing, none of another size.

    They are compared with an outline of the network before any of it takes memory.
    """
    try:
        with torch.device("meta"):
            outline = make().state_dict()
    except Exception as error:
        raise InputError(f"{named} are of another model: {reason(error)}") from error
    _compare({name: tuple(value.shape) for name, value in outline.items()}, state, named)
    network = make()
    network.load_state_dict(state)
    return network


def pretrained(cls: Any, source: str, named: str, revision: str | None, instead: str) -> Any:
    """A transformers model or tokenizer of a folder or a hub id, all tensors from its file."""
    folder = Path(source)
    if folder.is_dir():
        refuse_other_model(folder, f"{named} cannot be read from {printable(source)!r}")
        for path in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
            refuse_no_file(path, f"{named} cannot be read from {printable(source)}")
    else:
        if not hub.is_id(source):
            expected = "expected a folder or a hub id such as owner/name"
            raise InputError(f"{named} '{printable(source)}': {expected}")
        hub.file(named, source, "config.json", revision, instead)
    is_network = isinstance(cls, type) and issubclass(cls, nn.Module)
    try:
        if not is_network:
            return cls.from_pretrained(source, revision=revision)
        network, report = cls.from_pretrained(source, revision=revision, output_loading_info=True)
    except Exception as error:
        text = _cause(error)
        raise InputError(f"{named} cannot be read from {printable(source)!r}: {text}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(f"{named} lacks {_several(missing)} in {printable(source)!r}")
    return network


def _compare(shapes: dict[str, tuple[int, ...]], state: dict[str, Tensor], named: str) -> None:
    missing = sorted(set(shapes) - set(state))
    foreign = sorted(set(state) - set(shapes))
    if missing or foreign:
        lacks = f"it lacks {_several(missing)}" if missing else "it lacks nothing"
        more = f", and holds {_several(foreign)}" if foreign else ""
        raise InputError(f"{named} are of another model: {lacks}{more}")
    for name, shape in shapes.items():
        value = state[name]
        if tuple(value.shape) != shape:
            sizes = f"expected {shape}, got {tuple(value.shape)}"
            raise InputError(f"{named} are of another model: {name}: {sizes}")
        if not value.is_floating_point():
            raise InputError(f"{named} are of another model: {name}: {value.dtype} numbers")


def _several(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(printable(name, 80) for name in names[:3]) + more


def _cause(error: Exception) -> str:
    """The first sentence of an error of a library, which may go on for a page."""
    lines = str(error).strip().splitlines()
    return printable(lines[0], 200).rstrip(".") if lines else type(error).__name__
