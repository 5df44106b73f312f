"""Where a pipeline comes from: a hub id, a local folder, a built-in tiny model, random weights."""

import inspect
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from safetensors import SafetensorError
from torch import nn

from treerl.backbone import components, hub, random_weights
from treerl.backbone.files import boundary, read_json
from treerl.backbone.settings import PipelineSettings
from treerl.errors import InputError, StorageError, first_line, printable, shorten

if TYPE_CHECKING:
    from treerl.backbone.parts import PipelineParts

    Family = type[PipelineParts]

INDEX = "model_index.json"
# models of no weights: the published architecture, and the same with tiny widths
MADE = ("random", "miniature")


def check_class(family: "Family") -> None:
    """`InputError` when a family names no class of diffusers; none is imported for it."""
    if family.pipeline_class not in dir(diffusers):
        raise InputError(
            f"backbone {family.__name__}: pipeline_class: expected a class of diffusers "
            f"{diffusers.__version__}, got {family.pipeline_class!r}"
        )


def pipeline_class(family: "Family") -> Any:
    """The class of diffusers that a family names, as `check_class` has seen that there is one."""
    return getattr(diffusers, family.pipeline_class)


def check_available(family: "Family", settings: PipelineSettings, ask_hub: bool = True) -> None:
    """`InputError` when there is no such model, or it is another family's."""
    _check_tiny_vae(family, settings)
    if settings.model in MADE:
        return
    source = source_of(family, settings)
    there = Path(source).is_dir()
    if there or ask_hub or not hub.is_id(source):
        what = cannot(family, settings)
        kinds = _kinds(family, settings)
        if there:
            with boundary(what):
                _check_folder(family, Path(source), kinds, what)


def is_at_hand(family: "Family", settings: PipelineSettings) -> bool:
    """Whether the very model is known without the hub, and not its family's published one alone."""
    return settings.model in MADE or Path(source_of(family, settings)).is_dir()


def load(family: "Family", settings: PipelineSettings, device: torch.device) -> Any:
    """The pipeline that `backbone.model` names, each tensor of it from its file."""
    dtype: torch.dtype = getattr(torch, settings.dtype)
    if settings.model in MADE:
        return random_weights.build(family, settings.model, device, dtype)
    kinds = _kinds(family, settings)
    what = cannot(family, settings)
    with boundary(what):
        folder = _folder(family, settings)
        _check_folder(family, folder, kinds, what)
        index = read_json(folder / INDEX, what)
        parts: dict[str, Any] = _unused(index)
        for name, kind in kinds.items():
            if issubclass(kind, nn.Module) and name not in parts:
                about = f"{what}: {printable(name, 60)}"
                parts[name] = components.load_network(
                    kind, folder / name, about, settings.variant, dtype=dtype
                )
        return pipeline_class(family).from_pretrained(folder, dtype=dtype, **parts)


def arrange_vae(backbone: "PipelineParts") -> None:
    """Exchange the autoencoder for a tiny one, and decode in slices or tiles, as settings say."""
    settings = backbone.settings
    _check_tiny_vae(type(backbone), settings)
    if settings.tiny_vae is not None:
        backbone.pipeline.vae = _tiny_vae(settings.tiny_vae, backbone.pipeline.vae.dtype).to(
            backbone.device
        )
    decode_in_parts(backbone.pipeline.vae, settings)


def decode_in_parts(vae: Any, settings: PipelineSettings) -> None:
    """Let an autoencoder decode in slices or tiles, as settings say."""
    if settings.vae_slicing:
        _enable(vae, "slicing")
    if settings.vae_tiling:
        _enable(vae, "tiling")


def save_pretrained(part: Any, folder: Path) -> None:
    """A model or a pipeline of diffusers in its own format."""
    try:
        part.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{printable(folder)}: {first_line(error)}") from error


def source_of(family: "Family", settings: PipelineSettings) -> str:
    """The folder or the hub id that diffusers is given."""
    if settings.model != "tiny":
        return settings.model
    folder = Path(str(files("treerl") / "tiny" / family.name))
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in folder.parent.iterdir() if path.is_dir()))
        raise InputError(
            f"backbone.model: {family.title} has no built-in tiny model (there is one of: {known})"
        )
    return str(folder)


def cannot(family: "Family", settings: PipelineSettings) -> str:
    """The beginning of every complaint about a model."""
    return f"backbone.model: {settings.model!r} cannot be loaded as {family.title}"


def _kinds(family: "Family", settings: PipelineSettings) -> dict[str, type]:
    """The class of each component of the model, as its index says."""
    what = cannot(family, settings)
    index = _index(family, settings, what)
    kind = index.get("_class_name")
    if kind != family.pipeline_class:
        raise InputError(
            f"{what}: expected a {family.pipeline_class}, it is a {printable(kind, 60)}"
        )
    return components.classes(index, what)


def _index(family: "Family", settings: PipelineSettings, what: str) -> dict[str, Any]:
    """What model_index.json says; of a hub id it downloads that file, and no other."""
    model = source_of(family, settings)
    if Path(model).is_dir():
        path = Path(model) / INDEX
        if not path.is_file():
            raise InputError(
                f"{what}: it has no model_index.json, which every folder that diffusers saves has"
            )
    elif not hub.is_id(model) or Path(model).exists():
        raise InputError(
            f"{what}: expected a folder or a hub id such as owner/name, and it is neither"
        )
    else:
        path = Path(hub.file(what, model, INDEX, settings.revision, "give a folder as --model"))
    return read_json(path, what)


def _folder(family: "Family", settings: PipelineSettings) -> Path:
    """The folder of the model; of a hub id, the one that its files are downloaded to."""
    source = source_of(family, settings)
    if Path(source).is_dir():
        return Path(source)
    return Path(
        pipeline_class(family).download(
            source, revision=settings.revision, variant=settings.variant, use_safetensors=True
        )
    )


def _unused(index: dict[str, Any]) -> dict[str, bool | None]:
    """The components that a pipeline is made without, as arguments of it."""
    parts: dict[str, bool | None] = {}
    for name, value in index.items():
        if value == [None, None]:
            parts[name] = None
    if "safety_checker" in index:
        parts |= {"safety_checker": None, "requires_safety_checker": False}
    return parts


def on_meta(family: "Family", settings: PipelineSettings, folder: Path, what: str) -> Any:
    """The pipeline of a folder with networks that have shapes and no memory."""
    kinds = _kinds(family, settings)
    _check_folder(family, folder, kinds, what)
    index = read_json(folder / INDEX, what)
    dtype: torch.dtype = getattr(torch, settings.dtype)
    parts: dict[str, Any] = _unused(index)
    for name, kind in kinds.items():
        if issubclass(kind, nn.Module):
            parts[name] = components.on_meta(kind, folder / name, dtype)
    return pipeline_class(family).from_pretrained(folder, **parts)


def _check_folder(family: "Family", folder: Path, kinds: dict[str, type], what: str) -> None:
    """Every component has its files, and a denoiser is of the class that the pipeline drives."""
    components.check_folder(folder, kinds, what)
    expected = inspect.get_annotations(pipeline_class(family).__init__)
    for name in family.denoiser_names:
        kind = expected.get(name)
        if isinstance(kind, type) and name in kinds and not issubclass(kinds[name], kind):
            raise InputError(
                f"{what}: {name}: expected a {kind.__name__}, it is a {kinds[name].__name__}"
            )


def _check_tiny_vae(family: "Family", settings: PipelineSettings) -> None:
    """`InputError` when there is no such tiny autoencoder, or none can be used."""
    source = settings.tiny_vae
    if source is None:
        return
    if family.modality == "videos":
        raise InputError(
            "backbone.tiny_vae: expected null, as tiny autoencoders are of images, "
            f"got {shorten(source)}"
        )
    what = f"backbone.tiny_vae: {shorten(source)} cannot be loaded as an AutoencoderTiny"
    if Path(source).is_dir():
        components.check_network(Path(source), what)
    elif not hub.is_id(source) or Path(source).exists():
        raise InputError(
            f"{what}: expected a folder or a hub id such as owner/name, and it is neither"
        )


def _tiny_vae(source: str, dtype: torch.dtype) -> nn.Module:
    what = f"backbone.tiny_vae: {shorten(source)} cannot be loaded as an AutoencoderTiny"
    with boundary(what):
        tiny = components.load_network(
            diffusers.AutoencoderTiny, Path(source), what, None, dtype=dtype
        )
    network: nn.Module = tiny.requires_grad_(False).eval()
    return network


def _enable(vae: Any, way: str) -> None:
    switch = getattr(vae, f"enable_{way}", None)
    if switch is None:
        raise InputError(
            f"backbone.vae_{way}: expected false, as {type(vae).__name__} has none, got true"
        )
    switch()
