"""How much memory a run keeps, from its configuration and what the backbone says of its model."""

from math import prod
from typing import Any

from treerl import registry
from treerl.backbone.contract import Footprint
from treerl.config.schema import Config
from treerl.run.plan import Plan

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def memory(config: Config, plan: Plan) -> dict[str, Any]:
    """Bytes of an iteration's stored latents and of the model; None where loading must tell.

    Activations of the update depend on the device and are not estimated.
    """
    family = registry.load("backbones", config.backbone.name)
    footprint: Footprint = family.footprint(config.backbone.build())
    each = plan.algorithm.trees.stored(plan.steps, plan.algorithm.trees_per_prompt)
    stored = each * config.train.prompts_per_iteration
    shape = footprint.latent_shape
    latent = None if shape is None else prod(shape) * _BYTES[config.env.latent_dtype]
    doubled = footprint.rows_per_latent if config.env.guidance > 1 else 1
    return {
        "stored_latents": stored,
        "latent_shape": None if shape is None else list(shape),
        "latent_bytes": None if latent is None else stored * latent,
        "model_bytes": footprint.model_bytes,
        "rows_per_forward": config.train.micro_batch_size * doubled,
    }
