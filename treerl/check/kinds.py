"""Every kind of plug-in that can be checked, and what is said of it."""

from collections.abc import Iterator, Sequence
from typing import Any

from treerl import registry
from treerl.check import backbone, env, reward
from treerl.check.component import COMPONENTS
from treerl.check.finding import Finding, run
from treerl.config.resolve import resolve
from treerl.config.section import Plugin
from treerl.config.yaml import Item
from treerl.errors import InputError

# kind on the command line: where its name stands in a configuration
_PATHS = {
    "backbone": "backbone.name",
    "env": "env.name",
    "reward": "rewards",
    "kernel": "kernel",
    "branching": "tree.branching",
    "coupling": "tree.coupling",
    "normaliser": "advantage.normaliser",
    "weighting": "advantage.weighting",
    "baseline": "advantage.baseline",
    "selection": "train.selection",
    "objective": "objective",
}


def findings(
    kind: str, name: str, model: str | None, sets: Sequence[str], allow_plugins: bool
) -> Iterator[Finding]:
    """What the kit says of a plug-in with the parameters that `sets` give it."""
    if kind not in _PATHS:
        raise InputError(f"check: unknown kind {kind!r}; {registry.nearest(kind, list(_PATHS))}")
    path = _PATHS[kind]
    chosen = Item.of({name: 1.0} if kind == "reward" else name, "NAME")
    flags: dict[str, object] = {path: chosen}
    if kind == "branching":  # whatever it grows, there are leaves to compare and to train
        flags |= {"tree.trees_per_prompt": 2, "objective": "awm"}
    if model is not None:
        flags["backbone.model"] = model
    config = resolve(None, flags, sets, allow_plugins)
    if kind in ("backbone", "env") and model is None and "model" in config.backbone.params:
        config = resolve(None, flags | {"backbone.model": "miniature"}, sets, allow_plugins)
    if kind == "backbone":
        yield from backbone.findings(config)
    elif kind == "env":
        yield from env.findings(config)
    elif kind == "reward":
        yield from reward.findings(config)
    else:
        section: Any = config
        for part in path.split("."):
            section = dict(section)[part]
        setting: Plugin = section
        yield from run(COMPONENTS[setting.kind], setting.build())
