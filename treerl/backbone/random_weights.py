"""Pipelines of random weights from a family's architecture file: the published sizes, or the same with tiny widths.

`architectures/NAME.yaml` beside the family's file holds, under `published`, the classes and the config.json of every
component, and under `miniature` what is smaller there; `sizes` are those that a miniature is tried at.
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
from treerl.errors import InputError

if TYPE_CHECKING:
    from treerl.backbone.pipeline import PipelineBackbone

Parts = dict[str, Any]  # component name: its class and its config


def parts(family: "type[PipelineBackbone]", size: str) -> Parts:
    """The components of a family's pipeline, `size` being random (the published sizes) or miniature."""
    found = _read(family)
    made: Parts = found["published"]
    if size == "miniature":
        for component, smaller in found["miniature"].items():
            made[component] = {**made[component], **smaller} if smaller is not None else None
    return made


def sizes(family: "type[PipelineBackbone]") -> list[tuple[int, int, int]]:
    """Height, width and frames (1 for images) that a miniature of this family is tried at."""
    return [(*size, 1)[:3] for size in _read(family)["sizes"]]


def build(
    family: "type[PipelineBackbone]", size: str, device: torch.device, dtype: torch.dtype
) -> Any:
    """The pipeline, with random weights made on the device in the dtype that they are used in."""
    described = parts(family, size)
    pipeline_class = getattr(diffusers, family.pipeline_class)
    made: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for name, about in sorted(
            described.items(), key=lambda item: not item[0].startswith("tokenizer")
        ):
            made[name] = (
                _component(name, about, made, size, device, dtype)
                if isinstance(about, dict)
                else about
            )
    expected = inspect.signature(pipeline_class.__init__).parameters
    missing = [
        name
        for name in expected
        if name not in made and expected[name].default is inspect.Parameter.empty
    ]
    return pipeline_class(**made, **dict.fromkeys(set(missing) - {"self"}))


def _read(family: "type[PipelineBackbone]") -> Parts:
    file = Path(inspect.getfile(family)).parent / "architectures" / f"{family.name}.yaml"
    if not file.is_file():
        raise InputError(
            f"backbone.model: {family.title} has no architectures/{file.name} to build a model from"
        )
    found: Parts = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


def _component(
    name: str, about: Parts, made: Parts, size: str, device: torch.device, dtype: torch.dtype
) -> nn.Module | Any:
    config = {key: value for key, value in about.items() if key != "class"}
    kind = about["class"]
    if name.startswith("tokenizer"):
        return tokenizer.make(kind, config["model_max_length"])
    if hasattr(diffusers, kind) and not issubclass(getattr(diffusers, kind), nn.Module):
        return getattr(diffusers, kind)(**config)  # a scheduler
    words = made.get(name.replace("text_encoder", "tokenizer"))
    standard = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            built = module(about, words, size)
    finally:
        torch.set_default_dtype(standard)
    return _shaken(built.to(dtype)).eval()


def module(about: Parts, words: Any = None, size: str = "random") -> nn.Module:
    """One network; the marks of a text encoder are those of the tokenizer `words` that it comes with."""
    config, kind = {key: value for key, value in about.items() if key != "class"}, about["class"]
    if hasattr(diffusers, kind):
        made: nn.Module = getattr(diffusers, kind)(**config)
        return made
    cls = getattr(transformers, kind)
    for target in (config, config.get("text_config")):
        if words is None or not isinstance(target, dict):
            continue
        for mark in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(words, mark, None) is not None:
                target[mark] = getattr(words, mark)
        if size == "miniature":
            target["vocab_size"] = len(words)
    encoder: nn.Module = cls(cls.config_class(**config))
    return encoder


def _shaken(network: nn.Module) -> nn.Module:
    """Parameters that start at zero get values, so that no layer can hide behind another that is switched off."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.is_meta and not bool(parameter.any()):
                parameter.normal_(std=0.02)
    return network
