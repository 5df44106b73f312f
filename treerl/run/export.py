"""Turns a checkpoint into what diffusers loads by itself, and proves it: a fresh process draws the same picture."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import treerl.run.redraw
from treerl import registry
from treerl.backbone import adapter
from treerl.backbone.loading import MADE
from treerl.backbone.pipeline import PipelineBackbone
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.engine import noise
from treerl.engine.noise import Purpose
from treerl.engine.task import Task
from treerl.errors import InputError, StorageError
from treerl.run import tasks as prompts
from treerl.run.folder import storing
from treerl.run.run import device

_TOLERANCE = 1e-3  # of a pixel in [0, 1]: a quarter of the step of an eight-bit picture
_PATIENCE = 3600.0  # seconds for the fresh process: a large model is read again


@dataclass(frozen=True)
class Exported:
    """What was written, and how the fresh process saw it."""

    folder: Path
    kind: str  # "LoRA" or "weights"
    prompt: str
    difference: float  # largest, of pixels in [0, 1], between this process and the fresh one
    change: float | None  # mean, of pixels, that the LoRA makes; None for full weights


def export(source: Path, target: Path) -> Exported:
    """Write the checkpoint of a run, or the checkpoint folder of one, to `target` in diffusers' own format.

    A LoRA becomes what `load_lora_weights` reads, full weights become a folder for `from_pretrained`. A fresh process
    that imports diffusers and nothing of ours loads it and draws one held-out prompt; `StorageError` when the picture
    is not the same.
    """
    checkpoint, config = _found(source)
    if config.backbone.model in MADE:
        raise InputError(
            f"export: {source} was trained on random weights, which are nobody's model"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"export: {target} exists and is not empty; name another folder")
    family = registry.load("backbones", config.backbone.name)
    if not issubclass(family, PipelineBackbone):
        raise InputError(f"export: {config.backbone.name} has no diffusers pipeline to export for")
    settings = replace(config.backbone.settings(family.Settings), tiny_vae=None)
    backbone = family.load(settings, device(config))
    backbone.restore(checkpoint)
    adapted = any(map(adapter.adapted, backbone.denoisers.values()))
    target = target.resolve()  # the other process works elsewhere
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        return _published(backbone, config, draft, target, adapted)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _published(
    backbone: PipelineBackbone, config: Config, draft: Path, target: Path, adapted: bool
) -> Exported:
    with storing(target):
        if adapted:
            backbone.save(draft)
        else:
            walked, backbone.pipeline.scheduler = (
                backbone.pipeline.scheduler,
                backbone.shipped_scheduler,
            )
            backbone.pipeline.save_pretrained(draft)
            backbone.pipeline.scheduler = walked
        (draft / "README.md").write_text(_card(backbone, config, adapted), encoding="utf-8")
    prompt, difference, change = _proven(backbone, config, draft, adapted)
    with storing(target):
        if target.exists():
            target.rmdir()
        draft.rename(target)
    return Exported(target, "LoRA" if adapted else "weights", prompt, difference, change)


def _found(source: Path) -> tuple[Path, Config]:
    """The checkpoint folder and the configuration of its run."""
    run = next(
        (one for one in (source, *source.resolve().parents[:2]) if (one / "config.yaml").is_file()),
        None,
    )
    if run is None:
        raise InputError(
            f"export: expected a run folder, or a checkpoint in one, got {source} (no config.yaml)"
        )
    checkpoint = source / "checkpoints" / "last" if run == source else source
    if not checkpoint.is_dir():
        raise InputError(
            f"export: {source} has no checkpoint: its run ended before the first iteration"
        )
    return checkpoint, resolve(run / "config.yaml", {}, [], allow_plugins=True)


def _proven(
    backbone: PipelineBackbone, config: Config, draft: Path, adapted: bool
) -> tuple[str, float, float | None]:
    """Draw here and there, and compare."""
    prompt = prompts.builtin(config.prompts.builtin)[1][0]
    task = Task(prompt)
    steps, guidance = config.evaluate.steps or config.env.steps, config.env.guidance
    draws = noise.normal(
        noise.key(config.seed, Purpose.EVALUATION, 0),
        backbone.shape,
        torch.float32,
        backbone.device,
    )
    latents = backbone.initial(draws, backbone.encode([task]))
    here = backbone.call([task], latents, steps, guidance, "pt")
    given = backbone.arguments([task], latents, steps, guidance)
    backbone.pipeline.to("cpu")  # the other process wants the accelerator's memory
    with TemporaryDirectory() as folder:
        request = _request(backbone, config, draft, adapted) | {
            "arguments": {name: value for name, value in given.items() if name != "latents"}
        }
        (Path(folder) / "request.json").write_text(json.dumps(request), encoding="utf-8")
        save_file({"latents": latents.cpu().contiguous()}, Path(folder) / "latents.safetensors")
        drawn = _fresh(Path(folder))
    difference = float((drawn["after"] - here).abs().max())
    if not difference <= _TOLERANCE:
        raise StorageError(
            f"export: diffusers draws another picture than treerl: pixels differ by {difference:.2g}"
        )
    change = float((drawn["after"] - drawn["before"]).abs().mean()) if adapted else None
    return prompt, difference, change


def _request(
    backbone: PipelineBackbone, config: Config, draft: Path, adapted: bool
) -> dict[str, Any]:
    settings, first = config.backbone, next(iter(backbone.denoisers))
    names = [name for name, module in backbone.denoisers.items() if adapter.adapted(module)]
    model = backbone.source if adapted else str(draft)
    return {
        "pipeline": backbone.pipeline_class,
        "model": str(model),
        "revision": settings.revision if adapted else None,
        "variant": settings.variant if adapted else None,
        "dtype": settings.dtype,
        "device": str(backbone.device),
        "absent": [
            name for name, component in backbone.pipeline.components.items() if component is None
        ],
        "scheduler": {
            "_class_name": type(backbone.pipeline.scheduler).__name__,
            **backbone.pipeline.scheduler.config,
        },
        "precise_vae": backbone.float32_vae,
        "vae": [
            f"enable_{name}" for name in ("slicing", "tiling") if getattr(settings, f"vae_{name}")
        ],
        "adapters": [
            {
                "folder": str(draft if name == first else draft / name),
                "into": {} if name == first else {f"load_into_{name}": True},
            }
            for name in names
        ],
    }


def _fresh(folder: Path) -> dict[str, Tensor]:
    script = Path(treerl.run.redraw.__file__)
    try:
        done = subprocess.run(
            [sys.executable, str(script), str(folder)],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            cwd=folder,
        )
    except subprocess.TimeoutExpired as error:
        raise StorageError(
            f"export: the fresh process did not answer within {_PATIENCE:.0f} s"
        ) from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StorageError(f"export: diffusers cannot load what was written: {reason}")
    return load_file(folder / "drawn.safetensors")


def _card(backbone: PipelineBackbone, config: Config, adapted: bool) -> str:
    """A model card that says how to draw with it."""
    base = backbone.source if adapted else "this folder"
    steps, guidance = config.evaluate.steps or config.env.steps, config.env.guidance
    load = f'pipeline = {backbone.pipeline_class}.from_pretrained("{base if adapted else "."}")\n'
    if adapted:
        load += 'pipeline.load_lora_weights(".", weight_name="pytorch_lora_weights.safetensors")\n'
    rewards = ", ".join(f"{name} (weight {weight:g})" for name, weight in config.rewards.items())
    return (
        f"# {backbone.title}, trained with treerl\n\n"
        f"{'A LoRA for' if adapted else 'Weights of'} {base}, trained by `{config.recipe}` from the reward {rewards}.\n"
        f"Drawn and scored with {steps} steps and guidance {guidance:g}, the network in {config.backbone.dtype}.\n\n"
        f"```python\nfrom diffusers import {backbone.pipeline_class}\n\n{load}```\n"
    )
