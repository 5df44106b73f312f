"""Where a diffusers pipeline comes from: a hub id, a local folder, the built-in tiny model, or random weights."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError

from treerl.backbone import hub, random_weights
from treerl.backbone.contract import Footprint
from treerl.backbone.settings import PipelineSettings
from treerl.engine.task import Modality
from treerl.errors import InputError, StorageError, first_line, printable

if TYPE_CHECKING:
    from treerl.backbone.pipeline import PipelineBackbone

INDEX = "model_index.json"
MADE = (
    "random",
    "miniature",
)  # models of no weights: the published architecture, and the same with tiny widths
_LIBRARIES = (
    "diffusers",
    "transformers",
    "stable_diffusion",
)  # the last is how old folders spell a safety checker


def pipeline_class(family: "type[PipelineBackbone]") -> Any:
    """The class of diffusers that a family names; `InputError` when there is none."""
    kind = getattr(diffusers, family.pipeline_class, None)
    if kind is None:
        raise InputError(
            f"backbone {family.__name__}: pipeline_class: expected a class of diffusers "
            f"{diffusers.__version__}, got {family.pipeline_class!r}"
        )
    return kind


def footprint(family: "type[PipelineBackbone]", settings: PipelineSettings) -> Footprint:
    """The latent and the weights of a model, from its architecture."""
    size = "miniature" if settings.model == "miniature" else "random"
    unloaded = replace(settings, model=size, offload_text_encoders=False, tiny_vae=None)
    backbone = family.load(unloaded, torch.device("meta"))
    weights = 0
    for module in backbone.modules.values():
        weights += sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())
    return Footprint(backbone.shape, weights, 1 if family.guidance_embedded else 2)


def check_available(family: "type[PipelineBackbone]", settings: PipelineSettings) -> dict[str, Any]:
    """What the model's index says; `InputError` when there is none, or it is another family's."""
    if settings.model in MADE:
        return {}
    index = _index(family, settings)
    _refuse_foreign(family, settings.model, index)
    return index


def load(family: "type[PipelineBackbone]", settings: PipelineSettings, device: torch.device) -> Any:
    """The pipeline that `backbone.model` names; `InputError` says in one line what is missing and how to get it."""
    dtype: torch.dtype = getattr(torch, settings.dtype)
    if settings.model in MADE:
        return random_weights.build(family, settings.model, device, dtype)
    index = check_available(family, settings)
    source = source_of(family, settings)
    absent: dict[str, None] = dict.fromkeys(
        name for name, value in index.items() if value == [None, None]
    )
    unsafe = (
        {"safety_checker": None, "requires_safety_checker": False}
        if "safety_checker" in index
        else {}
    )
    try:
        return pipeline_class(family).from_pretrained(
            source,
            revision=settings.revision,
            variant=settings.variant,
            dtype=dtype,
            use_safetensors=True,
            **(absent | unsafe),
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise _cannot(family, settings.model, first_line(error)) from error


def arrange_vae(
    pipeline: Any, modality: Modality, settings: PipelineSettings, device: torch.device
) -> None:
    """Exchange the decoder for a tiny one, and decode in slices or tiles, as the settings ask."""
    if settings.tiny_vae is not None and modality == "videos":
        raise InputError(
            f"backbone.tiny_vae: expected null, as tiny autoencoders are of images, got {settings.tiny_vae!r}"
        )
    if settings.tiny_vae is not None:
        try:
            tiny = diffusers.AutoencoderTiny.from_pretrained(
                settings.tiny_vae, dtype=pipeline.vae.dtype
            )
        except (OSError, ValueError, HFValidationError) as error:
            what = (
                f"backbone.tiny_vae: {settings.tiny_vae!r} cannot be loaded as an AutoencoderTiny"
            )
            raise InputError(f"{what}: {first_line(error)}") from error
        pipeline.vae = tiny.requires_grad_(False).eval().to(device)
    for wanted, name in (
        (settings.vae_slicing, "enable_slicing"),
        (settings.vae_tiling, "enable_tiling"),
    ):
        if wanted and not hasattr(pipeline.vae, name):
            path = name.replace("enable", "vae")
            raise InputError(
                f"backbone.{path}: expected false, as {type(pipeline.vae).__name__} has none, got true"
            )
        if wanted:
            getattr(pipeline.vae, name)()


def save_pretrained(module: Any, folder: Path) -> None:
    """The weights of a model of diffusers in its own format."""
    try:
        module.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{printable(folder)}: {first_line(error)}") from error


def source_of(family: "type[PipelineBackbone]", settings: PipelineSettings) -> str:
    """The folder or the hub id that diffusers is given."""
    return _builtin(family) if settings.model == "tiny" else settings.model


def _builtin(family: "type[PipelineBackbone]") -> str:
    folder = Path(str(files("treerl") / "tiny" / family.name))
    if not folder.is_dir():
        tiny = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
        known = ", ".join(tiny)
        raise InputError(
            f"backbone.model: {family.title} has no built-in tiny model (there is one of: {known})"
        )
    return str(folder)


def _index(family: "type[PipelineBackbone]", settings: PipelineSettings) -> dict[str, Any]:
    """What model_index.json says; downloads that file, and no other, of a hub id."""
    model = source_of(family, settings)
    if Path(model).is_dir():
        path = Path(model) / INDEX
        if not path.is_file():
            why = "it has no model_index.json, which every folder that diffusers saves has"
            raise _cannot(family, settings.model, why)
    elif model.startswith((".", "/", "~")) or model.count("/") != 1 or Path(model).exists():
        raise _cannot(
            family,
            settings.model,
            "expected a folder or a hub id such as owner/name, and it is neither",
        )
    else:
        what = f"backbone.model: {settings.model!r} cannot be loaded as {family.title}"
        path = Path(hub.file(what, model, INDEX, settings.revision, "give a folder as --model"))
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _cannot(
            family, settings.model, f"model_index.json cannot be read: {first_line(error)}"
        ) from error
    if not isinstance(index, dict):
        raise _cannot(family, settings.model, "model_index.json is not a mapping")
    return index


def _refuse_foreign(family: "type[PipelineBackbone]", model: str, index: dict[str, Any]) -> None:
    """Another pipeline's folder, or one that brings code of its own."""
    found = index.get("_class_name")
    if found != family.pipeline_class:
        raise _cannot(family, model, f"expected a {family.pipeline_class}, it is a {found}")
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or value == [None, None]:
            continue
        if not value or value[0] not in _LIBRARIES:
            shown = value[0] if value else value
            why = f"its {name} is code of its own ({shown}), which treerl never runs"
            raise _cannot(family, model, why)


def _cannot(family: "type[PipelineBackbone]", model: str, reason: str) -> InputError:
    return InputError(f"backbone.model: {model!r} cannot be loaded as {family.title}: {reason}")
