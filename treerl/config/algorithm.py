"""From an algorithm to settings and back: a recipe is a value, and a configuration names one."""

from treerl.config.parameters import settings_of
from treerl.config.schema import Config
from treerl.engine.algorithm import Algorithm

# fields of an Algorithm that are plug-ins: the setting's path and the kind
_PLUGINS = {
    "kernel": ("kernel", "kernels"),
    "branching": ("tree.branching", "branchings"),
    "normaliser": ("advantage.normaliser", "normalisers"),
    "weighting": ("advantage.weighting", "weightings"),
    "baseline": ("advantage.baseline", "baselines"),
    "selection": ("train.selection", "selections"),
    "objective": ("objective", "objectives"),
}
# all others, with their paths
_VALUES = {
    "trees_per_prompt": "tree.trees_per_prompt",
    "shared_noise": "tree.shared_noise",
    "previews": "tree.previews",
    "normalise": "advantage.normalise",
    "advantage_clip": "advantage.clip",
    "reduction": "train.reduction",
    "optimizer_steps": "train.optimizer_steps",
    "ppo_epochs": "train.ppo_epochs",
}


def settings_of_recipe(algorithm: Algorithm) -> dict[str, object]:
    """The algorithm as settings by dotted path: the layer that a recipe puts over the defaults."""
    settings: dict[str, object] = {}
    for name, (path, kind) in _PLUGINS.items():
        settings[path] = settings_of(kind, getattr(algorithm, name))
    for name, path in _VALUES.items():
        settings[path] = getattr(algorithm, name)
    return settings


def algorithm_of(config: Config) -> Algorithm:
    """The algorithm that a configuration describes; `InputError` where a plug-in refuses."""
    return Algorithm(
        name=config.recipe,
        kernel=config.kernel.build(),
        branching=config.tree.branching.build(),
        trees_per_prompt=config.tree.trees_per_prompt,
        shared_noise=config.tree.shared_noise,
        previews=config.tree.previews,
        normaliser=config.advantage.normaliser.build(),
        weighting=config.advantage.weighting.build(),
        baseline=config.advantage.baseline.build(),
        normalise=config.advantage.normalise,
        advantage_clip=config.advantage.clip,
        selection=config.train.selection.build(),
        objective=config.objective.build(),
        reduction=config.train.reduction,
        optimizer_steps=config.train.optimizer_steps,
        ppo_epochs=config.train.ppo_epochs,
    )
