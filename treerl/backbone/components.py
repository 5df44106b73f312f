"""The networks of a model folder, loaded strictly: every tensor from its file, and no other."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedTokenizerBase

from treerl.backbone.files import (
    boundary,
    read_json,
    refuse_no_file,
    refuse_no_floats,
    refuse_other_model,
    refuse_tensors,
)
from treerl.errors import InputError, first_line, printable, shorten

LIBRARIES = ("diffusers", "transformers")
_READ = (".json", ".txt", ".model", ".safetensors")  # files of a component that are ever read
_CODE = "auto_map"  # key of a configuration that names classes in Python files beside it
# keys whose value may be a repository of compiled code, which transformers would download
_KERNEL = re.compile(r"_?(attn|experts)_implementation.*", re.ASCII)
_TIMESTEPS = 100_000  # of a scheduler's training; models have 1,000
_LARGEST = 16_384  # pixels or latent cells a side that a model may say it is made for
# what latents are reckoned with, long after the model was loaded
_RECKONED = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
_HUGE = 1e30  # of a number that latents are reckoned with; NaN is not below it either
_FLOAT = re.compile(r"B?F\d+.*", re.ASCII)  # as safetensors names types: F32, BF16, F8_E4M3
_SHARD = re.compile(r"[\w-][\w.-]*\.safetensors", re.ASCII)
_REPEATED = re.compile(r"(num|n)_(.*_)?(layers|blocks)|depth|layers_per_block", re.ASCII)
# buffers that older files still hold, and heads that a text encoder does not use
_HARMLESS = re.compile(r"(.*\.)?(position_ids|inv_freq)|lm_head\..*", re.ASCII)


def classes(index: dict[str, Any], what: str) -> dict[str, type]:
    """The class of each component that a model index names; absent ones are left out."""
    from diffusers import DiffusionPipeline  # which is slow to import

    kinds: dict[str, type] = {}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or value == [None, None]:
            continue
        library, kind = (*value, None, None)[:2]
        if library == "stable_diffusion":  # how old folders spell a safety checker, never loaded
            continue
        shown = printable(name, 60)
        if library not in LIBRARIES:
            source = printable(library if value else value, 60)
            raise InputError(
                f"{what}: its {shown} is code of its own ({source}), which treerl never runs"
            )
        module = importlib.import_module(library)
        loaded = getattr(module, kind, None) if isinstance(kind, str) else None
        if not isinstance(loaded, type):
            raise InputError(
                f"{what}: its {shown} is a {printable(kind, 60)!r}, which {library} "
                f"{module.__version__} does not have"
            )
        if issubclass(loaded, DiffusionPipeline):  # its own index would name what nobody looked at
            raise InputError(f"{what}: its {shown} is a whole pipeline ({kind})")
        kinds[name] = loaded
    return kinds


def check_folder(folder: Path, kinds: dict[str, type], what: str) -> None:
    """`InputError` for what can be seen before anything is built."""
    from diffusers import SchedulerMixin

    for name, kind in kinds.items():
        place = folder / name
        about = f"{what}: {printable(name, 60)}"
        if not place.is_dir():
            raise InputError(f"{about}: there is no such folder")
        for path in sorted(place.iterdir()):
            if path.suffix in _READ:
                refuse_no_file(path, about)
        if issubclass(kind, nn.Module):
            check_network(place, about)
        elif issubclass(kind, PreTrainedTokenizerBase):
            _check_tokenizer(kind, place, about)
        elif not issubclass(kind, SchedulerMixin):
            _refuse_code(place, about)
        elif (place / "scheduler_config.json").is_file():
            _check_scheduler(place / "scheduler_config.json", about)


def load_network(kind: Any, folder: Path, what: str, variant: str | None, **options: Any) -> Any:
    """A network from a folder; `InputError` names the tensors that do not fit."""
    if _of_transformers(kind):
        options["ignore_mismatched_sizes"] = True  # so that it tells their names
    with boundary(what):
        network, info = kind.from_pretrained(
            folder,
            variant=variant_of(folder, variant),
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    foreign = [name for name in info["unexpected_keys"] if not _HARMLESS.fullmatch(name)]
    shapes = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    refuse_tensors(what, sorted(info["missing_keys"]), sorted(foreign), sorted(shapes))
    return network


def on_meta(kind: Any, folder: Path, dtype: torch.dtype) -> nn.Module:
    """A network with the shapes that its configuration says, and no memory."""
    with torch.device("meta"):
        if _of_transformers(kind):
            network: nn.Module = kind(kind.config_class.from_pretrained(folder))
        else:
            network = kind.from_config(kind.load_config(folder))
    return network.to(dtype)


def variant_of(folder: Path, variant: str | None) -> str | None:
    """The variant where this component has files of it; some components of a model have none."""
    if variant is None or any(folder.glob(f"*.{variant}*.safetensors")):
        return variant
    return None


def _of_transformers(kind: type) -> bool:
    return kind.__module__.startswith("transformers.")


def check_network(place: Path, what: str) -> None:
    """`InputError` for a network's folder without weights, or whose configuration is absurd."""
    refuse_other_model(place, what)
    config = read_json(place / "config.json", what)
    for path in sorted(place.glob("*.safetensors.index*.json")):
        _check_shards(path, what)
    files = sorted(place.glob("*.safetensors"))
    if not files:
        raise InputError(f"{what}: it has no safetensors file")
    types: dict[str, str] = {}  # of tensors, by name
    for path in files:
        refuse_no_file(path, what)
        try:
            with safe_open(path, framework="pt") as file:
                types |= {name: file.get_slice(name).get_dtype() for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise InputError(f"{what}: {printable(path.name)}: {first_line(error)}") from error
    if any(_KERNEL.fullmatch(key) and "/" in str(value) for key, value in _pairs(config)):
        raise InputError(f"{what}: config.json names code of the hub, which treerl never runs")
    others = {name: kind for name, kind in types.items() if not _FLOAT.fullmatch(kind)}
    refuse_no_floats(what, {name: others[name] for name in others if not _HARMLESS.fullmatch(name)})
    for key in _RECKONED:
        _check_numbers(key, config.get(key), what)
    if config.get("scaling_factor", 1.0) is None:
        raise InputError(f"{what}: scaling_factor: expected a number, got null")
    for key, number in _integers(config):
        if _REPEATED.fullmatch(key) and number > len(types):  # a layer has a tensor at least
            raise InputError(
                f"{what}: config.json says {printable(key, 60)} = {shorten(number)}, and its files "
                f"hold {len(types)} tensors"
            )
        if key.endswith("sample_size") and number > _LARGEST:
            raise InputError(
                f"{what}: {printable(key, 60)}: expected at most {_LARGEST}, got {shorten(number)}"
            )


def _check_shards(path: Path, what: str) -> None:
    """`InputError` for an index that names something else than safetensors files beside it."""
    shards = read_json(path, what).get("weight_map")
    names = list(shards.values()) if isinstance(shards, dict) else [shards]
    for name in names:
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise InputError(
                f"{what}: {printable(path.name)}: expected names of safetensors files beside it, "
                f"got {shorten(name)}"
            )


def _refuse_code(place: Path, what: str) -> None:
    """`InputError` for a processor whose parts are code of its own.

    Networks, tokenizers and schedulers are made by the class that the index names. A processor
    looks for the classes of its parts, and asks on the terminal whether to run theirs.
    """
    for path in sorted(place.rglob("*config.json")):
        if any(key == _CODE for key, _ in _pairs(read_json(path, what))):
            raise InputError(
                f"{what}: {printable(path.name)} names code of its own ({_CODE}), which treerl "
                "never runs"
            )


def _pairs(value: object) -> Iterator[tuple[str, object]]:
    """Every key of a configuration with its value, however deep."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            yield from part.items()
            left += part.values()


def _check_numbers(key: str, value: object, what: str) -> None:
    """`InputError` for what is neither absent, nor a finite number, nor a list of such."""
    for number in value if isinstance(value, list) else [value]:
        plain = isinstance(number, int | float) and -_HUGE < number < _HUGE
        if value is not None and not plain:
            raise InputError(f"{what}: {key}: expected numbers, got {shorten(number)}")


def _check_tokenizer(kind: type[PreTrainedTokenizerBase], place: Path, what: str) -> None:
    """`InputError` without a vocabulary: an empty one would be made up, and every text unknown."""
    config = place / "tokenizer_config.json"
    length = read_json(config, what).get("model_max_length") if config.is_file() else None
    if length is not None and not (isinstance(length, int | float) and length >= 1):
        raise InputError(f"{what}: model_max_length: expected a number >= 1, got {shorten(length)}")
    names = kind.vocab_files_names
    whole = names.get("tokenizer_file", "tokenizer.json")
    parts = [name for name in names.values() if name != whole]
    present = [name for name in parts if (place / name).is_file()]
    if (place / whole).is_file() or (parts and present == parts):
        return
    instead = f", or {' and '.join(parts)}" if parts else ""
    raise InputError(
        f"{what}: expected {whole}{instead}, got {' and '.join(present) or 'none of them'}"
    )


def _check_scheduler(path: Path, what: str) -> None:
    steps = read_json(path, what).get("num_train_timesteps", 1)
    if type(steps) is not int or not 1 <= steps <= _TIMESTEPS:
        raise InputError(
            f"{what}: num_train_timesteps: expected an integer from 1 to {_TIMESTEPS}, "
            f"got {printable(steps, 40)}"
        )


def _integers(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The integers of a configuration by key, those in lists under the list's key."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _integers(value)
            continue
        for number in value if isinstance(value, list) else [value]:
            if type(number) is int:
                yield key, number
