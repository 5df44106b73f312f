"""Turns a checkpoint into what others load by themselves, and proves it by loading it again."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from treerl import registry
from treerl.backbone import adapter, comfyui, exporting
from treerl.backbone.contract import Backbone
from treerl.backbone.pipeline import PipelineBackbone
from treerl.config import textfile, yaml
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.engine.task import Task
from treerl.errors import InputError, StorageError, first_line, printable
from treerl.run import checkpoints, proof
from treerl.run.assemble import device_of
from treerl.run.durable import storing
from treerl.run.quiet import quiet
from treerl.run.tasks import read_tasks


@dataclass(frozen=True)
class Exported:
    """What was written, and how what loaded it saw it."""

    folder: Path
    kind: str  # "LoRA" or "weights"
    prompt: str
    difference: float  # largest, of pixels in [0, 1] or of weights, to what was loaded again
    change: float | None  # mean, of pixels, that the LoRA makes; None where none was exported
    comfyui: bool  # whether there is a file for ComfyUI too

    def lines(self) -> list[str]:
        """As the command line prints it."""
        lines = [f"exported: {self.folder} ({self.kind})"]
        if self.change is None:
            lines.append(f"loaded again: differs by {self.difference:.2g} at most")
        else:
            lines.append(
                f"drawn by diffusers alone for {self.prompt!r}: pixels differ by "
                f"{self.difference:.2g} at most; the LoRA changes them by {self.change:.2g}"
            )
        if self.comfyui:
            lines.append(f"for ComfyUI: {self.folder / comfyui.FILE}")
        return lines


@dataclass(frozen=True)
class _Checkpoint:
    """A checkpoint, and the run that it is of."""

    folder: Path
    run: Path
    config: Config


def export(
    source: Path, target: Path, allow_plugins: bool = False, prompts: Sequence[Task] | None = None
) -> Exported:
    """Write the checkpoint of a run, or the checkpoint folder of one, to `target`.

    A LoRA of a pipeline becomes what `load_lora_weights` of diffusers and ComfyUI read, full
    weights become a folder for `from_pretrained`, and those of a plain model a file with a
    description. What was written is loaded again and compared; `StorageError` when it is another
    model. `prompts` are drawn for it, the run's held-out ones when None.
    """
    quiet()
    with storing(target):
        taken = target.is_symlink() or target.exists()
        if taken and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"export: {target} exists and is not empty; name another folder")
    checkpoint = _checkpoint(source, allow_plugins)
    config = checkpoint.config
    family = registry.load("backbones", config.backbone.name)
    settings = config.backbone.build()
    if issubclass(family, PipelineBackbone):
        settings = replace(settings, tiny_vae=None)  # others decode with the model's own
    backbone: Backbone = family.load(settings, device_of(config))
    backbone.check_exportable()
    backbone.restore(checkpoint.folder)
    task = Task.of((prompts or read_tasks(config)[1])[0])
    target = target.resolve()  # the other process works elsewhere
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if isinstance(backbone, PipelineBackbone):
            exported = _pipeline(backbone, config, task, draft)
        else:
            exported = _plain(backbone, task, draft, family.load(settings, device_of(config)))
        with storing(target):
            if target.exists():
                target.rmdir()
            draft.rename(target)
        return replace(exported, folder=target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _pipeline(backbone: PipelineBackbone, config: Config, task: Task, draft: Path) -> Exported:
    steps = config.evaluate.steps or config.env.steps
    drawing = proof.Drawing(task, steps, config.env.guidance, config.seed)
    request = proof.request(backbone, drawing)  # asked before anything is written
    kind = "LoRA" if exporting.as_lora(backbone) else "weights"
    with storing(draft):
        backbone.export(draft)
        (draft / "README.md").write_text(_card(backbone, config, draft), encoding="utf-8")
    difference, change = proof.compare(backbone, drawing, request, draft)
    named = (draft / comfyui.FILE).is_file()
    return Exported(draft, kind, task.prompt, difference, change, named)


def _plain(backbone: Backbone, task: Task, draft: Path, again: Backbone) -> Exported:
    with storing(draft):
        backbone.export(draft)
    again.restore(draft)
    difference = 0.0
    lora = False
    for name, module in backbone.denoisers.items():
        lora = lora or adapter.adapted(module)
        loaded = again.denoisers[name].state_dict()
        for key, tensor in module.state_dict().items():
            apart = (loaded[key].double() - tensor.double()).abs()
            difference = max(difference, float(apart.max()) if apart.numel() else 0.0)
    if difference > 0:
        raise StorageError(
            f"export: what was loaded again is another model: weights differ by {difference:.2g}"
        )
    return Exported(draft, "LoRA" if lora else "weights", task.prompt, difference, None, False)


def _checkpoint(source: Path, allow_plugins: bool) -> _Checkpoint:
    """The checkpoint folder and the configuration of its run, whose plug-in is the run's copy."""
    # not resolve, which breaks at a link that leads to itself
    folders = [source, *Path(os.path.realpath(source)).parents[:2]]
    with storing(source):
        runs = [folder for folder in folders if (folder / "config.yaml").is_file()]
    if not runs:
        raise InputError(
            f"export: expected a run folder, or a checkpoint in one, got {source} (no config.yaml)"
        )
    run = runs[0]
    folder = checkpoints.newest(run / "checkpoints") if run == source else source
    if not folder.is_dir():
        raise InputError(f"export: expected a checkpoint, and there is no folder {folder}")
    if checkpoints.is_one(folder):
        checkpoints.verify(folder)
    file = run / "config.yaml"
    written = yaml.parse(textfile.decode(textfile.read_bytes(file, 2**24), file.name), file.name)
    sections = written.plain()
    backbone = sections.get("backbone") if isinstance(sections, dict) else None
    name = backbone.get("name") if isinstance(backbone, dict) else None
    if not (isinstance(name, str) and isinstance(backbone, dict) and registry.is_file(name)):
        return _Checkpoint(folder, run, resolve(file, {}, [], allow_plugins))
    if not allow_plugins:
        raise InputError(
            f"export: backbone {name!r} is a plug-in from outside the registry; add "
            "--allow-plugins to the command line to run its code"
        )
    # the file of the run may be gone or another one: its name must not be resolved
    sections["backbone"] = {**backbone, "name": _copy_of(name, run)}
    return _Checkpoint(folder, run, resolve(None, sections, [], allow_plugins))


def _copy_of(name: str, run: Path) -> str:
    """The plug-in as the run ran it: its copy in the run folder, whose checksum must be right."""
    source, _, attribute = name.rpartition(":")
    if not source.endswith(".py"):
        return name  # a module of an installed package
    entry = next((plugin for plugin in _plugins(run) if plugin.get("name") == name), None)
    if entry is None or not isinstance(entry.get("copy"), str):
        raise InputError(f"export: the manifest of {run} has no copy of the plug-in {name}")
    copy = run / entry["copy"]
    if not copy.resolve().is_relative_to(run.resolve()) or not copy.is_file():
        raise InputError(f"export: {run} has no file {printable(entry['copy'], 80)}")
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    if digest != entry.get("sha256"):
        raise InputError(
            f"export: {copy} is not the plug-in that the run used: expected sha256 "
            f"{printable(entry.get('sha256'), 64)}, got {digest}"
        )
    return f"{copy}:{attribute}"


def _plugins(run: Path) -> list[dict[str, Any]]:
    try:
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"export: {run / 'manifest.json'}: {first_line(error)}") from error
    plugins = manifest.get("plugins", []) if isinstance(manifest, dict) else []
    return [plugin for plugin in plugins if isinstance(plugin, dict)]


def _card(backbone: PipelineBackbone, config: Config, draft: Path) -> str:
    """A model card that says how to draw with it."""
    lora = exporting.as_lora(backbone)
    base = backbone.source if lora else "this folder"
    steps = config.evaluate.steps or config.env.steps
    rewards = ", ".join(
        f"{name} (weight {reward.weight:g})" for name, reward in config.rewards.items()
    )
    source = base if lora else "."
    code = [
        f"from diffusers import {backbone.pipeline_class}",
        "",
        f"pipeline = {backbone.pipeline_class}.from_pretrained({source!r})",
    ]
    if lora:
        code.append(f'pipeline.load_lora_weights(".", weight_name="{adapter.FILE}")')
    text = [
        f"# {backbone.title}, trained with treerl",
        "",
        f"{'A LoRA for' if lora else 'Weights of'} {base}, trained by `{config.recipe}` from the "
        f"reward {rewards}.",
        f"Drawn and scored with {steps} steps and guidance {config.env.guidance:g}, the network "
        f"in {backbone.settings.dtype}{_bits(backbone)}.",
    ]
    used = backbone.pipeline.scheduler
    if used is not backbone.shipped_scheduler:
        text.append(
            f"The noise levels were stepped by {type(used).__name__} ({_order(used)}); the model "
            f"comes with {type(backbone.shipped_scheduler).__name__}."
        )
    if (draft / comfyui.FILE).is_file():
        text.append(f"`{comfyui.FILE}` is the same LoRA in the names that ComfyUI knows.")
    elif lora:
        text.append("A file in the names of ComfyUI is not provided for this family.")
    return "\n".join([*text, "", "```python", *code, "```", ""])


def _bits(backbone: PipelineBackbone) -> str:
    how = backbone.settings.quantize
    return "" if how is None else f", its blocks in {how}"


def _order(scheduler: Any) -> str:
    order = scheduler.config.get("solver_order")
    return "one step at a time" if order is None else f"of order {order}"
