"""Settings gathered from several sources, later ones over earlier ones, before they are checked."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from treerl.config.paths import PLUGINS, hint
from treerl.config.schema import Reward
from treerl.config.section import Plugin, named
from treerl.config.yaml import Item
from treerl.errors import shorten, shown

# a reward's name, and what follows it: `./mine.py:Blue.weight`, `hps.weight`, `hps`
_REWARD = re.compile(
    r"(?P<name>[^:]*[./\\][^:]*\.py(:[^.]*)?|[^:.]*:[^.]*|[^:.]+)(\.(?P<rest>.*))?"
)
Path = tuple[str, ...]


def nested(path: str, item: Item) -> Item:
    """A setting at a dotted path, as the mapping that a run file would say."""
    for key in reversed(keys(path)):
        item = Item({key: item}, item.where, partial=True)
    return item


def keys(path: str) -> Path:
    """The parts of a dotted path; the name of a reward may have dots itself."""
    first, _, rest = path.partition(".")
    if first in ("rewards", "watch") and rest:
        match = re.fullmatch(_REWARD, rest)
        if match and match["rest"] is None:
            return (first, match["name"])
        if match:
            return (first, match["name"], *match["rest"].split("."))
    return tuple(path.split("."))


def merge(low: Any, high: Item, path: Path = ()) -> Any:
    """Plain settings with a layer over them.

    Mappings are merged, but a whole mapping of rewards replaces the one below, and a plug-in of
    another name drops the parameters below.
    """
    value = longhand(high.value, path)
    if not isinstance(value, Mapping):
        return value
    below = dict(low) if isinstance(low, Mapping) else {}
    renamed = "name" in value and value["name"].value != below.get("name")
    replaced = path in (("rewards",), ("watch",)) and not high.partial
    if replaced or (renamed and ".".join(path) in PLUGINS):
        below = {}
    for key, item in value.items():
        below[key] = merge(below.get(key), item, (*path, key))
    return below


def longhand(value: Any, path: Path) -> Any:
    """A value with its shorthand written out, as a mapping of items."""
    plain = value
    if path == ("watch",):
        plain = named(value)
    elif len(path) == 2 and path[0] in ("rewards", "watch"):
        plain = Reward.longhand(value) if path[0] == "rewards" else value
    elif ".".join(path) in PLUGINS:
        plain = Plugin.longhand(value)
    if plain is value:
        return value
    return {key: Item.of(inner, "") for key, inner in plain.items()}


def where(layers: Sequence[Item], *paths: Path) -> str:
    """Where the last written of these paths was written, or else the nearest one above it."""
    for up in range(max(map(len, paths))):
        for layer in reversed(layers):
            for path in paths:
                item = find(layer, path[: len(path) - up])
                if item is not None and len(path) > up:
                    return item.where
    return "default"


def find(item: Item, path: Path) -> Item | None:
    """What a layer says at a path, or the shorthand that stands above it."""
    for key in path:
        if not isinstance(item.value, Mapping):
            return item
        if key not in item.value:
            return None
        item = item.value[key]
    return item


def _implied(layers: Sequence[Item], loc: Path) -> Iterator[str]:
    """The rest of a dotted path that is unknown from here on."""
    items = [item for layer in layers if (item := find(layer, loc)) is not None]
    item = items[-1] if items else Item(None, "")
    while item.partial:
        ((key, item),) = item.value.items()
        yield key


def complaints(error: ValidationError, layers: Sequence[Item]) -> list[str]:
    """One line for each setting that is refused, with its source and its dotted path."""
    lines: list[str] = []
    for entry in error.errors(include_url=False):
        loc = tuple(str(part) for part in entry["loc"])
        if loc[-1:] == ("[key]",):  # said of the name itself, which the key is
            continue
        if loc[:1] in (("rewards",), ("watch",)) and loc[2:] == ("name",):
            loc = loc[:2]
        paths = entry.get("ctx", {}).get("paths") or [".".join(loc)]
        text = entry["msg"]
        if entry["type"] == "extra_forbidden":
            paths = [".".join((*loc, *_implied(layers, loc)))]
            text = f"unknown key; {hint(paths[0])}"
        elif entry["type"] != "refused":
            text = f"expected a mapping of settings, got {shorten(entry['input'])}"
        places = [keys(path) for path in paths] if len(paths) > 1 else [loc]
        source = where(layers, *places)
        lines.append(f"{source}: {', '.join(shown(path) for path in paths)}: {text}")
    return lines
