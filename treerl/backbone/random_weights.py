"""Pipelines of random weights from a family's architecture: the published sizes, or tiny ones.

`architectures/NAME.yaml` beside the family's file holds, under `published`, the class and the
config.json of every component, and under `miniature` what is smaller there; `sizes` are height,
width and, of videos, frames that a miniature is tried at.
"""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
import transformers
import yaml
from torch import nn

from treerl.backbone import tokenizer
from treerl.errors import InputError, TreerlError, first_line

if TYPE_CHECKING:
    from treerl.backbone.parts import PipelineParts

    Family = type[PipelineParts]

Parts = dict[str, Any]  # component name: its class and its config
_SECTIONS = {"published": dict, "miniature": dict, "sizes": list}


def parts(family: "Family", size: str) -> Parts:
    """The components of a family's pipeline, `size` being random (the published) or miniature."""
    described = _read(family)
    chosen: Parts = described["published"]
    if size == "random":
        return chosen
    for component, smaller in described["miniature"].items():
        if component not in chosen:
            known = ", ".join(chosen)
            raise InputError(
                f"{_file(family).name}: miniature.{component}: expected one of {known}"
            )
        chosen[component] = None if smaller is None else {**chosen[component], **smaller}
    return chosen


def sizes(family: "Family") -> list[tuple[int, int, int]]:
    """Height, width and frames (1 for images) that a miniature of this family is tried at."""
    padded = []
    for size in _read(family)["sizes"]:
        whole = isinstance(size, list) and all(type(side) is int for side in size)
        if not whole or len(size) not in (2, 3):
            raise InputError(
                f"{_file(family).name}: sizes: expected height, width and frames of a video, "
                f"got {size!r}"
            )
        height, width, frames = (*size, 1)[:3]
        padded.append((height, width, frames))
    return padded


def build(family: "Family", size: str, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline; its weights are made on the device in the dtype that they are used in."""
    described = parts(family, size)
    # a text encoder is made for the tokenizer that it comes with
    order = sorted(described, key=lambda name: not name.startswith("tokenizer"))
    components: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for name in order:
            components[name] = described[name]
            if isinstance(described[name], dict):
                what = f"{_file(family).name}: {name}"
                components[name] = _component(
                    name, described[name], components, size, device, dtype, what
                )
    kind = getattr(diffusers, family.pipeline_class)
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name != "self" and parameter.default is inspect.Parameter.empty:
            components.setdefault(name, None)
    return kind(**components)


def module(about: Parts, words: Any = None, size: str = "random") -> nn.Module:
    """One network; the marks of a text encoder are those of the tokenizer `words`."""
    config = {key: value for key, value in about.items() if key != "class"}
    kind = about["class"]
    if hasattr(diffusers, kind):
        network: nn.Module = getattr(diffusers, kind)(**config)
        return network
    encoder_class = getattr(transformers, kind)
    for target in (config, config.get("text_config")):
        if words is None or not isinstance(target, dict):
            continue
        for mark in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(words, mark, None) is not None:
                target[mark] = getattr(words, mark)
        if size == "miniature":
            target["vocab_size"] = len(words)
    encoder: nn.Module = encoder_class(encoder_class.config_class(**config))
    return encoder


def _component(
    name: str,
    about: Parts,
    components: Parts,
    size: str,
    device: torch.device,
    dtype: torch.dtype,
    what: str,
) -> nn.Module | Any:
    """A tokenizer, a scheduler or a network; `InputError` with the component's name."""
    kind = about.get("class")
    if not isinstance(kind, str):
        raise InputError(f"{what}.class: expected the name of a class, got {kind!r}")
    try:
        if name.startswith("tokenizer"):
            length = about.get("model_max_length")
            if type(length) is not int:
                raise InputError(f"{what}.model_max_length: expected a number, got {length!r}")
            return tokenizer.make(kind, length)
        if not hasattr(diffusers, kind) and not hasattr(transformers, kind):
            raise InputError(f"{what}.class: neither diffusers nor transformers has a {kind!r}")
        if hasattr(diffusers, kind) and not issubclass(getattr(diffusers, kind), nn.Module):
            config = {key: value for key, value in about.items() if key != "class"}
            return getattr(diffusers, kind)(**config)  # a scheduler
        words = components.get(name.replace("text_encoder", "tokenizer"))
        return _network(about, words, size, device, dtype)
    except TreerlError:
        raise
    except Exception as error:  # of a class that was given what it does not take
        raise InputError(f"{what}: {type(error).__name__}: {first_line(error)}") from error


def _network(
    about: Parts, words: Any, size: str, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    standard = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            network = module(about, words, size)
    finally:
        torch.set_default_dtype(standard)
    return _shaken(network.to(dtype)).eval()


def _shaken(network: nn.Module) -> nn.Module:
    """Parameters that start at zero get values, lest a layer hide behind one that is off."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.is_meta and not bool(parameter.any()):
                parameter.normal_(std=0.02)
    return network


def _file(family: "Family") -> Path:
    return Path(inspect.getfile(family)).parent / "architectures" / f"{family.name}.yaml"


def _read(family: "Family") -> Parts:
    file = _file(family)
    if not file.is_file():
        raise InputError(
            f"backbone.model: {family.title} has no architectures/{file.name} to build a model from"
        )
    try:
        described = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        reason = getattr(error, "problem", None) or first_line(error)
        raise InputError(f"{file.name}{line}: {reason}") from error
    if not isinstance(described, dict):
        raise InputError(f"{file.name}: expected published, miniature and sizes at the top")
    for name, kind in _SECTIONS.items():
        if not isinstance(described.get(name), kind):
            raise InputError(f"{file.name}: {name}: expected a {kind.__name__} of that name")
    return described
