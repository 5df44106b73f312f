"""An algorithm and the settings that describe it: each can be made of the other."""

import sys
from typing import Any

from treerl import registry
from treerl.config.paths import PLUGINS
from treerl.config.schema import Config
from treerl.config.section import Plugin
from treerl.engine.algorithm import Algorithm
from treerl.engine.recipes import recipes
from treerl.errors import InputError

# the field of `Algorithm`: the dotted path of its setting
PATHS = {
    "kernel": "kernel",
    "branching": "tree.branching",
    "trees_per_prompt": "tree.trees_per_prompt",
    "shared_noise": "tree.shared_noise",
    "coupling": "tree.coupling",
    "tail_stride": "tree.tail_stride",
    "tail_order": "tree.tail_order",
    "granularities": "tree.granularities",
    "previews": "tree.previews",
    "normaliser": "advantage.normaliser",
    "weighting": "advantage.weighting",
    "baseline": "advantage.baseline",
    "normalise": "advantage.normalise",
    "advantage_clip": "advantage.clip",
    "selection": "train.selection",
    "objective": "objective",
    "reduction": "train.reduction",
    "optimizer_steps": "train.optimizer_steps",
    "ppo_epochs": "train.ppo_epochs",
    "decay": "train.decay",
    "ema": "train.ema",
    "rollout": "train.rollout",
}


def recipe_settings(algorithm: Algorithm) -> dict[str, Any]:
    """The dotted settings that make this algorithm; a plug-in is its name and its parameters."""
    settings: dict[str, Any] = {}
    for field, path in PATHS.items():
        value = getattr(algorithm, field)
        settings[path] = _written(PLUGINS[path].kind, value) if path in PLUGINS else value
    return settings


def algorithm_of(config: Config) -> Algorithm:
    """The algorithm that a configuration describes, under the name of the recipe it starts from."""
    values: dict[str, Any] = {}
    for field, path in PATHS.items():
        value: Any = config
        for key in path.split("."):
            value = getattr(value, key)
        values[field] = value.build() if isinstance(value, Plugin) else value
    return Algorithm(name=config.recipe, source=recipes[config.recipe].source, **values)


def _written(kind: str, plugin: Any) -> dict[str, Any]:
    """A plug-in as settings."""
    holder = type(plugin)
    values = {field: getattr(plugin, field) for field in registry.fields(holder)}
    return {"name": _name(kind, holder), **registry.plain(holder, values)}


def _name(kind: str, plugin: type) -> str:
    """The name by which the registry gives this class: the announced one, else where it stands."""
    place = f"{plugin.__module__}:{plugin.__qualname__}"
    for name, point in registry.announced(kind).items():
        if point.value == place:
            return name
    if "." in plugin.__qualname__ or plugin.__module__ == "__main__":
        raise InputError(f"{kind}: {place} is neither announced nor a class of a module")
    file = getattr(sys.modules[plugin.__module__], "__file__", None)
    from_file = plugin.__module__.startswith("treerl_plugin_")
    return f"{file}:{plugin.__qualname__}" if from_file else place
