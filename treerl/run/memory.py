"""How much memory a run keeps, from its configuration and the model's files or published architecture."""

import json
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

from treerl import registry
from treerl.config.schema import Config
from treerl.run.plan import Plan

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def memory(config: Config, plan: Plan) -> dict[str, Any]:
    """Bytes of the stored latents of an iteration and of the model; None for what is not known before loading.

    Of a model that is not on this machine, the published architecture of its family is asked. Activations of the update
    depend on the device and are not estimated.
    """
    folder = _folder(config)
    latent, weights = (
        _published(config) if folder is None else (_latent(folder, config), _files(folder))
    )
    nodes = max(_stored(shape.children, shape.stochastic) for shape in plan.starts().values())
    stored = nodes * config.tree.roots * config.train.prompts
    return {
        "stored_latents": stored,
        "latent_shape": latent,
        "latent_bytes": stored * prod(latent) * _BYTES[config.env.storage] if latent else None,
        "model_bytes": weights,
        "rows_per_forward": config.train.rows
        * (2 if config.env.guidance > 1 and not _embedded(config) else 1),
    }


def _stored(children: tuple[int, ...], stochastic: tuple[bool, ...]) -> int:
    """Latents kept of one tree: both ends of every sampled edge, and the leaves."""
    live, kept = 1, 0
    for step, (count, sampled) in enumerate(zip(children, stochastic, strict=True)):
        kept += live if sampled or (step and stochastic[step - 1]) else 0
        live *= count
    return kept + live


def _folder(config: Config) -> Path | None:
    if config.backbone.model == "tiny":
        return Path(str(files("treerl") / "tiny" / config.backbone.name))
    folder = Path(config.backbone.model)
    return folder if folder.is_dir() else None


def _files(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def _published(config: Config) -> tuple[list[int] | None, int | None]:
    """The shape of a latent and the bytes of all weights."""
    family = registry.load("backbones", config.backbone.name)
    footprint = family.footprint(config.backbone.settings(family.Settings))
    shape = footprint.latent_shape
    return None if shape is None else list(shape), footprint.model_bytes


def _embedded(config: Config) -> bool:
    """Whether guidance is an input of the network, so that it doubles nothing."""
    return bool(
        getattr(registry.load("backbones", config.backbone.name), "guidance_embedded", False)
    )


def _latent(folder: Path, config: Config) -> list[int] | None:
    description = folder / "transformer" / "config.json"
    if not description.is_file():
        return None
    about = json.loads(description.read_text(encoding="utf-8"))
    if "sample_size" not in about or config.backbone.height is not None:
        return None
    return [about["in_channels"], about["sample_size"], about["sample_size"]]
