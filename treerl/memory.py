"""How much memory a run keeps, from its configuration and the model's own files, without loading them."""

import json
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

from treerl.config import Config
from treerl.plan import Plan

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def memory(config: Config, plan: Plan) -> dict[str, Any]:
    """Bytes of the stored latents of an iteration and of the model's files; None for what is not known before loading.

    Activations of the update depend on the device and are not estimated.
    """
    folder = _folder(config)
    latent = _latent(folder, config)
    nodes = max(_stored(shape.children, shape.stochastic) for shape in plan.starts().values())
    stored = nodes * config.tree.roots * config.train.prompts
    return {
        "stored_latents": stored,
        "latent_shape": latent,
        "latent_bytes": stored * prod(latent) * _BYTES[config.env.storage] if latent else None,
        "model_file_bytes": sum(path.stat().st_size for path in folder.rglob("*.safetensors")) if folder else None,
        "rows_per_forward": config.train.rows * (2 if config.env.guidance > 1 else 1),
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


def _latent(folder: Path | None, config: Config) -> list[int] | None:
    description = folder / "transformer" / "config.json" if folder else None
    if description is None or not description.is_file():
        return None
    about = json.loads(description.read_text(encoding="utf-8"))
    if "sample_size" not in about or config.backbone.height is not None:
        return None
    return [about["in_channels"], about["sample_size"], about["sample_size"]]
