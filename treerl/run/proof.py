"""Whether a fresh process that imports diffusers alone draws the same from an export."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import treerl.run.redraw
from treerl.backbone import adapter, exporting
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine import noise
from treerl.engine.noise import Stream
from treerl.engine.task import Task
from treerl.errors import InputError, StorageError, printable
from treerl.run.redraw import IMAGE

_TOLERANCE = 1e-3  # of a pixel in [0, 1]: a quarter of the step of an eight-bit image
_TIMEOUT = 3600.0  # seconds for the fresh process: a large model is read again


@dataclass(frozen=True)
class Drawing:
    """What is drawn to compare: one task, as the run evaluates it."""

    task: Task
    steps: int
    guidance: float
    seed: int


@dataclass(frozen=True)
class Request:
    """A drawing as the fresh process gets it."""

    start: Tensor  # [1, *shape]
    latents: Tensor  # the same as the pipeline's call takes it
    arguments: dict[str, Any]  # of that call; images are names of files
    images: Mapping[str, Image.Image]  # by file name


def request(backbone: PipelineBackbone, drawing: Drawing) -> Request:
    """`InputError` names the argument that no other process can be given."""
    tasks = [drawing.task]
    draws = noise.normal(
        noise.key(drawing.seed, Stream.EVALUATION, 0),
        backbone.shape,
        torch.float32,
        backbone.device,
    )
    start = backbone.initial(draws, backbone.encode(tasks))
    arguments = backbone.arguments(tasks, start, drawing.steps, drawing.guidance)
    latents: Tensor = arguments.pop("latents")
    images: dict[str, Image.Image] = {}
    plain = {name: _plain(value, name, images) for name, value in arguments.items()}
    return Request(start, latents, plain, images)


def compare(
    backbone: PipelineBackbone, drawing: Drawing, asked: Request, draft: Path
) -> tuple[float, float | None]:
    """The largest difference to the fresh process, and the mean change that the LoRA makes."""
    here = backbone.call([drawing.task], asked.start, drawing.steps, drawing.guidance, output="pt")
    backbone.pipeline.to("cpu")  # the other process wants the accelerator's memory
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, image in asked.images.items():
            image.save(folder / file)
        text = json.dumps(_model(backbone, draft) | {"arguments": asked.arguments})
        (folder / "request.json").write_text(text, encoding="utf-8")
        save_file({"latents": asked.latents.cpu().contiguous()}, folder / "latents.safetensors")
        drawn = _fresh(folder)
    difference = float((drawn["after"] - here).abs().max())
    if not difference <= _TOLERANCE:
        raise StorageError(
            f"export: diffusers draws another {backbone.modality.removesuffix('s')} than treerl: "
            f"pixels differ by {difference:.2g}"
        )
    change = None
    if "before" in drawn:
        change = float((drawn["after"] - drawn["before"]).abs().mean())
    return difference, change


def _plain(value: Any, name: str, images: dict[str, Image.Image]) -> Any:
    """The value as JSON knows it; images are put aside under names of files."""
    if isinstance(value, Image.Image):
        file = f"image-{len(images)}.png"
        images[file] = value
        return {IMAGE: file}
    if isinstance(value, list | tuple):
        return [_plain(part, name, images) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part, f"{name}.{key}", images) for key, part in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"export: arguments: {name}: expected a finite number, got {value}")
    if value is None or isinstance(value, str | int | float):
        return value
    raise InputError(
        f"export: arguments: {name}: expected numbers, texts, images or lists of them, which "
        f"another process can be given, got {type(value).__name__}"
    )


def _model(backbone: PipelineBackbone, draft: Path) -> dict[str, Any]:
    """Which model the fresh process loads, and how."""
    settings = backbone.settings
    lora = exporting.as_lora(backbone)
    scheduler = backbone.pipeline.scheduler
    parts = backbone.pipeline.components.items()
    vae = []
    if settings.vae_slicing:
        vae.append("enable_slicing")
    if settings.vae_tiling:
        vae.append("enable_tiling")
    return {
        "pipeline": backbone.pipeline_class,
        "model": backbone.source if lora else str(draft),
        "revision": settings.revision if lora else None,
        "variant": settings.variant if lora else None,
        "dtype": settings.dtype,
        "device": str(backbone.device),
        "denoisers": list(backbone.denoisers),
        "quantize": settings.quantize,
        "absent": [name for name, part in parts if part is None],
        "scheduler": {"_class_name": type(scheduler).__name__, **scheduler.config},
        "float32_vae": backbone.float32_vae,
        "vae": vae,
        "adapters": _adapters(backbone, draft) if lora else [],
    }


def _adapters(backbone: PipelineBackbone, draft: Path) -> list[dict[str, Any]]:
    first = next(iter(backbone.denoisers))
    adapters: list[dict[str, Any]] = []
    for name, module in backbone.denoisers.items():
        if adapter.adapted(module):
            place = draft if name == first else draft / name
            into = {} if name == first else {f"load_into_{name}": True}
            adapters.append({"folder": str(place), "into": into})
    return adapters


def _fresh(folder: Path) -> dict[str, Tensor]:
    script = Path(treerl.run.redraw.__file__)
    try:
        process = subprocess.run(
            [sys.executable, str(script), str(folder)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            cwd=folder,
        )
    except subprocess.TimeoutExpired as error:
        raise StorageError(
            f"export: the fresh process did not answer within {_TIMEOUT:.0f} s"
        ) from error
    if process.returncode != 0:
        reason = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StorageError(f"export: diffusers cannot load what was written: {printable(reason)}")
    return load_file(folder / "drawn.safetensors")
