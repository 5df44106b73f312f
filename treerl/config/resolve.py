"""Turns defaults, a recipe, a preset, a run file, flags and --set into one checked configuration."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from treerl.config import textfile, yamlfile
from treerl.config.algorithm import settings_of_recipe
from treerl.config.complaint import complaints
from treerl.config.draft import Draft, wrap
from treerl.config.parameters import Plugin
from treerl.config.rewards import RewardSetting
from treerl.config.schema import DEFAULTS, Config
from treerl.config.setting import shorten, to_float
from treerl.config.yamlfile import Item
from treerl.errors import InputError
from treerl.engine.recipes import recipes
from treerl.registry import announced

Layer = list[tuple[str, Item]]  # dotted paths and what to write there, in order

_FLAGS = {  # the flags that are not called like their path
    "backbone.name": "--backbone",
    "backbone.model": "--model",
    "rewards": "--reward",
    "data.train": "--prompts",
}
_CHOICES = frozenset(["recipe", "backbone.name"])  # these choose the preset, so it cannot set them
_MADE = "miniature"  # has none of the sizes that the published model is used with


def resolve(
    config_file: Path | None,
    flags: Mapping[str, object],
    sets: Sequence[str],
    allow_plugins: bool = False,
) -> Config:
    """The configuration; `InputError` with one line for each thing that is wrong.

    Later wins: defaults, recipe, preset, run file, flags, --set. `flags` are dotted paths to values;
    None means that the flag was not given. Rewards replace those of the layer below; `rewards.NAME`
    adds to them. Another plug-in's name drops the parameters of the layers below.
    """
    errors: list[str] = []
    high: Layer = []
    with _collecting(errors):
        high += [("", yamlfile.read(config_file))] if config_file is not None else []
    for path, value in flags.items():
        high += [(path, wrap(value, _FLAGS.get(path, f"--{path}")))] if value is not None else []
    for text in sets:
        with _collecting(errors):
            high.append(_override(text))
    low = _recipe(high)
    middle: Layer = []
    with _collecting(errors):
        middle += _preset([*low, *high])
    draft = _drafted([*low, *middle, *high])
    draft.errors[:0] = errors
    return _check(draft, allow_plugins)


def dump(config: Config) -> str:
    """YAML text that, as a run file, gives an equal configuration."""
    return yamlfile.write(plain(config))


def plain(value: Any) -> Any:
    """A configuration, or a part of it, as mappings, lists and scalars."""
    if isinstance(value, BaseModel):
        return {name: plain(inner) for name, inner in value}
    if isinstance(value, Plugin):
        return {"name": value.name, **value.params}
    if isinstance(value, RewardSetting):
        spec = value.spec()
        return value.weight if list(spec) == ["weight"] else spec
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def parse_rewards(texts: Iterable[str]) -> dict[str, float]:
    """`["hps=0.8", "clip"]` as weights by name; a weight that is not given is 1."""
    rewards: dict[str, float] = {}
    errors = []
    for text in texts:
        name, _, weight = text.rpartition("=") if "=" in text else (text, "", "1")
        value = to_float(weight.strip())
        name = name.strip()
        if not name:
            errors.append(f"--reward: rewards: expected NAME or NAME=WEIGHT, got {shorten(text)}")
        elif not isinstance(value, float) or not math.isfinite(value) or value == 0:
            path = f"rewards.{textfile.shown(name)}"
            errors.append(
                f"--reward: {path}: expected a finite number other than 0, got {shorten(weight)}"
            )
        elif name in rewards:
            errors.append(
                f"--reward: rewards.{textfile.shown(name)}: expected each reward once, got it twice"
            )
        else:
            rewards[name] = value
    if errors:
        raise InputError("\n".join(errors))
    return rewards


def _check(draft: Draft, allow_plugins: bool) -> Config:
    try:
        config = Config.model_validate(draft.nested(), context={"allow_plugins": allow_plugins})
    except ValidationError as error:
        draft.errors.extend(complaints(error, draft))
    if draft.errors:
        raise InputError("\n".join(draft.errors))
    return config


@contextmanager
def _collecting(errors: list[str]) -> Iterator[None]:
    """Go on after an unreadable source, to report what is wrong with the others too."""
    try:
        yield
    except InputError as error:
        errors.append(str(error))


def _override(text: str) -> tuple[str, Item]:
    path, equals, value = text.partition("=")
    path = path.strip()
    if not path or not equals:
        raise InputError(f"--set: expected dotted.path=value, got {shorten(text)}")
    try:
        return path, yamlfile.parse(value, "--set", lines=False)
    except InputError as error:
        problem = str(error).removeprefix("--set: ")
        raise InputError(f"--set: {textfile.shown(path)}: {problem}") from error


def _drafted(layers: Layer) -> Draft:
    draft = Draft()
    for path, item in layers:
        draft.put(path, item)
    return draft


def _recipe(high: Layer) -> Layer:
    """The settings of the recipe that the layers above choose; a wrong choice is left to the check."""
    name = _drafted(high).get("recipe")
    if not isinstance(name, str) or name not in recipes:
        return []
    settings = settings_of_recipe(recipes[name])
    return [(path, wrap(value, f"recipe {name}")) for path, value in settings.items()]


def _preset(layers: Layer) -> Layer:
    """What the chosen backbone needs: presets/NAME.yaml, or presets/NAME-tiny.yaml for the tiny model.

    A backbone that was named without a model means the published one, which NAME.yaml names.
    """
    chosen = _drafted(layers).values.get("backbone", {})
    name = chosen.get("name", DEFAULTS["backbone"])
    if not isinstance(name, str) or name not in announced("backbones"):
        return []  # also keeps `..` out of the file name
    model = chosen.get("model", "tiny" if "name" not in chosen else None)
    file = f"{name}-tiny.yaml" if model == "tiny" else f"{name}.yaml"
    preset = resources.files("treerl").joinpath("config", "presets", file)
    if not preset.is_file():
        return []
    where = f"preset {file}"
    item = yamlfile.parse(textfile.decode(preset.read_bytes(), where), where)
    if model == _MADE:
        kept = {key: inner for key, inner in item.value.items() if key != "backbone"}
        item = Item(kept, item.where)
    for path, source in _drafted([("", item)]).sources.items():
        if path in _CHOICES:
            raise InputError(
                f"{source}: {path}: expected no choice of recipe or backbone in a preset"
            )
    return [("backbone.name", wrap(name, where)), ("", item)]
