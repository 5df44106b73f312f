"""Defaults, a recipe, a preset, a run file, flags and --set become one checked configuration."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from inspect import get_annotations
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from treerl.config import textfile, yaml
from treerl.config.layers import complaints, find, longhand, merge, nested
from treerl.config.paths import PLUGINS, SECTIONS
from treerl.config.schema import Config
from treerl.config.yaml import Item
from treerl.errors import InputError, shorten, shown
from treerl.registry import announced, parameters, to_float

_FLAGS = {  # the flags that are not called like their path
    "backbone.name": "--backbone",
    "backbone.model": "--model",
    "rewards": "--reward",
    "data.train": "--prompts",
}


def resolve(
    config_file: Path | None,
    flags: Mapping[str, object],
    sets: Sequence[str],
    allow_plugins: bool = False,
) -> Config:
    """The configuration; `InputError` with one line for each thing that is wrong.

    Later wins: defaults, recipe, preset, run file, flags, --set. `flags` are values by dotted path,
    None for a flag that was not given, an `Item` for what was said elsewhere. A mapping of rewards
    replaces the one of the layer below, `rewards.NAME` adds to it; a plug-in of another name drops
    the parameters of the layers below.
    """
    errors: list[str] = []
    layers: list[Item] = []
    if config_file is not None:
        with _collecting(errors):
            layers.append(yaml.read(config_file))
    for path, value in flags.items():
        if isinstance(value, Item):
            layers.append(nested(path, value))
        elif value is not None:
            layers.append(nested(path, Item.of(value, _FLAGS.get(path, f"--{path}"))))
    for text in sets:
        with _collecting(errors):
            layers.append(_override(text))
    layers = [_sections(layer, errors) for layer in layers]
    # what needs no plug-in is looked at first: importing them is slow, and a typo has no patience
    _, slips = _checked(layers, {"names_only": True, "allow_plugins": allow_plugins})
    if (errors or slips) and not _parameters(layers):
        raise InputError("\n".join([*errors, *slips]))
    with _collecting(errors):
        recipe = _recipe(layers)
        layers = [*recipe, *_preset(layers, recipe), *layers]
    config, problems = _checked(layers, {"allow_plugins": allow_plugins})
    if config is None or errors:
        raise InputError("\n".join([*errors, *problems]))
    return config


def dump(config: Config) -> str:
    """YAML text that, as a run file, gives an equal configuration."""
    return yaml.write(config.model_dump())


def parse_rewards(texts: Iterable[str]) -> dict[str, float]:
    """`["hps=0.8", "clip"]` as weights by name; a weight that is not given is 1."""
    rewards: dict[str, float] = {}
    errors = []
    for text in texts:
        name, _, weight = text.rpartition("=") if "=" in text else (text, "", "1")
        value = to_float(weight.strip())
        name = name.strip()
        path = f"--reward: rewards.{shown(name)}"
        if not name:
            errors.append(f"--reward: rewards: expected NAME or NAME=WEIGHT, got {shorten(text)}")
        elif not isinstance(value, float) or not math.isfinite(value) or value == 0:
            errors.append(f"{path}: expected a finite number other than 0, got {shorten(weight)}")
        elif name in rewards:
            errors.append(f"{path}: expected each reward once, got it twice")
        else:
            rewards[name] = value
    if errors:
        raise InputError("\n".join(errors))
    return rewards


def _checked(layers: Sequence[Item], context: dict[str, bool]) -> tuple[Config | None, list[str]]:
    """The configuration that the layers make, or what is wrong with it."""
    try:
        return Config.model_validate(_merged(layers), context=context), []
    except ValidationError as error:
        return None, complaints(error, layers)


def _merged(layers: Sequence[Item]) -> Any:
    """Plain settings, over what the names of plug-ins are when nobody says."""
    settings: Any = {"rewards": {"shapes": {}}}
    for path, plugin in PLUGINS.items():
        name = Item(plugin.model_fields["name"].default, "default")
        settings = merge(settings, nested(f"{path}.name", name))
    for layer in layers:
        settings = merge(settings, layer)
    return settings


@contextmanager
def _collecting(errors: list[str]) -> Iterator[None]:
    """Go on after an unreadable source, to report what is wrong with the others too."""
    try:
        yield
    except InputError as error:
        errors.append(str(error))


def _override(text: str) -> Item:
    path, equals, value = text.partition("=")
    path = path.strip()
    if not path or not equals:
        raise InputError(f"--set: expected dotted.path=value, got {shorten(text)}")
    try:
        return nested(path, yaml.parse(value, "--set", lines=False))
    except InputError as error:
        problem = str(error).removeprefix("--set: ")
        raise InputError(f"--set: {shown(path)}: {problem}") from error


def _sections(layer: Item, errors: list[str]) -> Item:
    """The layer without sections that are none, which a layer above could hide."""
    kept = dict(layer.value)
    for key, item in layer.value.items():
        short = key in PLUGINS and isinstance(item.value, str)
        if key in SECTIONS and not short and not isinstance(item.value, Mapping):
            got = shorten(item.value)
            errors.append(f"{item.where}: {key}: expected a mapping of settings, got {got}")
            del kept[key]
    return Item(kept, layer.where, layer.partial)


def _parameters(layers: Sequence[Item]) -> bool:
    """Whether anything is set that only a plug-in itself can judge."""
    settings = _merged(layers)
    for path in PLUGINS:
        at = settings
        for key in path.split("."):
            at = at.get(key) if isinstance(at, dict) else None
        if isinstance(at, dict) and set(at) - {"name"}:
            return True
    return False


def _recipe(layers: Sequence[Item]) -> list[Item]:
    """The settings of the recipe that the layers choose; the check reports a wrong choice."""
    from treerl.config.algorithm import recipe_settings  # the engine, which is slow to import
    from treerl.engine.recipes import recipes

    name = _merged(layers).get("recipe", Config.model_fields["recipe"].default)
    if not isinstance(name, str) or name not in recipes:
        return []
    settings = recipe_settings(recipes[name])
    return [nested(path, Item.of(value, f"recipe {name}")) for path, value in settings.items()]


def _preset(layers: Sequence[Item], recipe: Sequence[Item]) -> list[Item]:
    """What the chosen backbone needs: presets/NAME.yaml, or NAME-tiny.yaml for the tiny model.

    A backbone that was named without a model means the published one, which NAME.yaml names. Below
    it lies other.yaml, which is all that a plug-in of somebody's own gets.
    """
    name = _merged(layers)["backbone"].get("name")
    # with the name below everything, as the check will see it: a model named before it counts
    below = [nested("backbone.name", Item(name, "")), *layers]
    model = _merged(below)["backbone"].get("model")
    if not isinstance(name, str):
        return []
    sections = [find(layer, ("backbone",)) for layer in layers]
    said = any(item and "name" in longhand(item.value, ("backbone",)) for item in sections)
    tiny = model == "tiny" or (model is None and not said)
    file = f"{name}-tiny.yaml" if tiny else f"{name}.yaml"
    presets = resources.files("treerl").joinpath("config", "presets")
    # a name that is not announced may have `..` in it
    known = name in announced("backbones") and presets.joinpath(file).is_file()
    of_backbone = [file] if known else []
    files = of_backbone if of_backbone and tiny else ["other.yaml", *of_backbone]
    kept = [_read(presets.joinpath(file), model, recipe) for file in files]
    return [nested("backbone.name", Item(name, kept[-1].where)), *kept]


def _read(preset: Traversable, model: object, recipe: Sequence[Item]) -> Item:
    """What a preset says of this model under this recipe."""
    source = f"preset {preset.name}"
    settings = dict(yaml.parse(textfile.decode(preset.read_bytes(), source), source).value)
    if model == "miniature":  # has none of the sizes that the published model is used with
        settings.pop("backbone", None)
    return Item({path: _shared(path, item, recipe) for path, item in settings.items()}, source)


def _shared(path: str, section: Item, recipe: Sequence[Item]) -> Item:
    """A preset's section, without parameters that mean something else in the recipe's plug-in.

    What is said without a name is said of the default plug-in: the clip range of a density ratio.
    """
    chosen = _merged(recipe).get(path, {}).get("name") if path in PLUGINS and recipe else None
    if chosen is None or "name" in section.value:
        return section
    plugin = PLUGINS[path]
    default = plugin.model_fields["name"].default
    kept = {
        key: item
        for key, item in section.value.items()
        if _in_common(plugin.kind, key, default, chosen)
    }
    return Item(kept, section.where)


def _in_common(kind: str, key: str, *names: str) -> bool:
    """Whether plug-ins have a parameter from one class, which says of all what it means."""
    origins = set()
    for name in names:
        bases = parameters(kind, name).__mro__
        owners = [base for base in bases if key in get_annotations(base)]
        origins.add(owners[-1] if owners else name)
    return len(origins) == 1
