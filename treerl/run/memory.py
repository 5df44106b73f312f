"""How much memory a run keeps, from its configuration and what the backbone says unloaded."""

from math import prod
from typing import Any

from treerl import registry
from treerl.config.schema import Config
from treerl.run.plan import Plan

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def memory(config: Config, plan: Plan) -> dict[str, Any]:
    """Bytes of an iteration's stored latents and of the model; None where that is not known.

    Activations of the update depend on the device and are not estimated.
    """
    family = registry.load("backbones", config.backbone.name)
    footprint = family.footprint(config.backbone.settings(family.Settings))
    latent = footprint.latent_shape
    nodes = max(_stored(shape.children, shape.stochastic) for shape in plan.starts().values())
    stored = nodes * config.tree.roots * config.train.prompts
    guided = config.env.guidance > 1
    return {
        "stored_latents": stored,
        "latent_shape": None if latent is None else list(latent),
        "latent_bytes": stored * prod(latent) * _BYTES[config.env.storage] if latent else None,
        "model_bytes": footprint.model_bytes,
        "rows_per_forward": config.train.rows * (footprint.rows_per_latent if guided else 1),
    }


def _stored(children: tuple[int, ...], stochastic: tuple[bool, ...]) -> int:
    """Latents kept of one tree: both ends of every sampled edge, and the leaves."""
    live = 1
    kept = 0
    for step, (count, sampled) in enumerate(zip(children, stochastic, strict=True)):
        kept += live if sampled or (step and stochastic[step - 1]) else 0
        live *= count
    return kept + live
