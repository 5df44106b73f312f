"""Settings gathered from several sources, later ones over earlier ones, before anything is checked."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from treerl.config.schema import DEFAULTS, FIELDS, MAPPINGS, PLUGINS, SECTIONS
from treerl.config.setting import shorten
from treerl.config.textfile import shown
from treerl.config.yamlfile import Item


@dataclass
class Draft:
    """Values and origins by dotted path; origins are in the order of writing, the last wins."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def put(self, path: str, item: Item) -> None:
        """Write an item at a dotted path, "" being the top; what belongs nowhere is an error."""
        if path == "" or path in SECTIONS:
            self._put_section(path, item)
        elif path in PLUGINS:
            self._put_plugin(path, item)
        elif path in MAPPINGS:
            self._put_mapping(path, item)
        elif path in FIELDS:
            self._note(path, item.where)
            self.values[path] = item.plain()
        else:
            self._put_below(path, item)

    def get(self, path: str) -> Any:
        """The value at a field's path, or its default; of a plug-in its name."""
        if path in PLUGINS:
            return self.values.get(path, {}).get("name")
        if path in self.values:
            return self.values[path]
        return FIELDS[path].get_default(call_default_factory=True)

    def where(self, *paths: str) -> str:
        """Where the last written of these paths, or of what is below them, was written."""
        written = [
            source
            for source in self.sources
            if any(source == path or source.startswith(f"{path}.") for path in paths)
        ]
        return self.sources[written[-1]] if written else "default"

    def nested(self) -> dict[str, Any]:
        """The values as sections of settings."""
        top: dict[str, Any] = {}
        for path, value in self.values.items():
            section, _, key = path.rpartition(".")
            (top.setdefault(section, {}) if section else top)[key] = value
        return top

    def _put_section(self, path: str, item: Item) -> None:
        if not isinstance(item.value, dict):
            got = shorten(item.value)
            self.errors.append(f"{item.where}: {path}: expected a mapping of settings, got {got}")
            return
        for key, inner in item.value.items():
            below = f"{path}.{key}" if path else key
            if not key or "." in key:  # a second spelling would hide duplicates
                known = below in FIELDS or below in PLUGINS
                hint = f"write it nested, as --set {below}=... does" if known else _hint(below)
                self.errors.append(f"{inner.where}: {shown(below)}: unknown key; {hint}")
            else:
                self.put(below, inner)

    def _put_plugin(self, path: str, item: Item) -> None:
        """A name, or a mapping of a name and parameters; another name drops the old parameters."""
        if not isinstance(item.value, dict):
            self._rename(path, item.plain(), item.where)
            return
        if "name" in item.value:
            self._rename(path, item.value["name"].plain(), item.value["name"].where)
        for key, inner in item.value.items():
            if key != "name":
                self._put_parameter(path, key, inner)

    def _rename(self, path: str, name: object, where: str) -> None:
        if self.values.get(path, {}).get("name", DEFAULTS[path]) != name:
            self.values[path] = {}
            for source in [key for key in self.sources if key.startswith(f"{path}.")]:
                del self.sources[source]
        self.values.setdefault(path, {})["name"] = name
        self._note(f"{path}.name", where)

    def _put_parameter(self, path: str, key: str, item: Item) -> None:
        settings = self.values.setdefault(path, {"name": DEFAULTS[path]})
        settings[key] = item.plain()
        self._note(f"{path}.{key}", item.where)

    def _put_mapping(self, path: str, item: Item) -> None:
        """Rewards replace the ones below them: a recipe's do not linger under one's own."""
        self.values[path] = item.plain()
        for source in [key for key in self.sources if key.startswith(f"{path}.")]:
            del self.sources[source]
        self._note(path, item.where)
        if isinstance(item.value, dict):
            for key, inner in item.value.items():
                self._note(f"{path}.{key}", inner.where)
                if isinstance(inner.value, dict):
                    for name, value in inner.value.items():
                        self._note(f"{path}.{key}.{name}", value.where)

    def _put_below(self, path: str, item: Item) -> None:
        """A parameter of a plug-in, or a reward in a mapping, by its dotted path."""
        for slot in PLUGINS:
            if path.startswith(f"{slot}.") and len(path) > len(slot) + 1:
                key = path[len(slot) + 1 :]
                if key == "name":
                    self._rename(slot, item.plain(), item.where)
                else:
                    self._put_parameter(slot, key, item)
                return
        mapping, _, rest = path.partition(".")
        if mapping in MAPPINGS and rest:
            self._put_reward(mapping, rest, item)
            return
        # looking for likely names is slow, and after a hundred no reader is left
        hint = f"; {_hint(path)}" if len(self.errors) < 100 else ""
        self.errors.append(f"{item.where}: {shown(path)}: unknown key{hint}")

    def _put_reward(self, mapping: str, rest: str, item: Item) -> None:
        name, key = _split(rest)
        rewards = self.values.get(mapping)
        if rewards is None:
            rewards = {"shapes": 1.0} if mapping == "rewards" else {}
        rewards = {name: {} for name in rewards} if isinstance(rewards, list) else dict(rewards)
        if key:
            before = rewards.get(name, {})
            settings = dict(before) if isinstance(before, Mapping) else {"weight": before}
            rewards[name] = {**settings, key: item.plain()}
        else:
            rewards[name] = item.plain()
        self.values[mapping] = rewards
        self._note(f"{mapping}.{rest}", item.where)

    def _note(self, path: str, where: str) -> None:
        self.sources.pop(path, None)  # so that the order is that of the last write
        self.sources[path] = where


def wrap(value: object, where: str) -> Item:
    """Plain data as an item, all of it from one place."""
    if isinstance(value, Mapping):
        return Item({str(key): wrap(inner, where) for key, inner in value.items()}, where)
    if isinstance(value, list | tuple):
        return Item([wrap(inner, where) for inner in value], where)
    return Item(str(value) if isinstance(value, PurePath) else value, where)


def _split(rest: str) -> tuple[str, str]:
    """A reward and a key of it: hps.weight, ./mine.py:Blue.strength; the key may be missing."""
    file, colon, tail = rest.rpartition(":")
    name, _, key = tail.partition(".")
    return f"{file}{colon}{name}", key


def _hint(path: str) -> str:
    """The nearest known path: the same word in another section, else the most alike."""
    section, _, key = path[:200].rpartition(".")
    if section in MAPPINGS or path.rstrip(".") in MAPPINGS:
        return f"expected a name after {section}."
    if section in FIELDS:
        return f"{section} is a single value"
    known = [*FIELDS, *PLUGINS, *SECTIONS, *MAPPINGS]
    same = [name for name in known if name.rpartition(".")[2] == key]
    inside = [name for name in known if section and name.rpartition(".")[0] == section]
    keys = {name.rpartition(".")[2]: name for name in inside or known}
    close = difflib.get_close_matches(key, list(keys), n=1, cutoff=0.6)
    if same and not (inside and close):
        return f"did you mean {same[0]}?"
    if close:
        return f"did you mean {keys[close[0]]}?"
    alike = difflib.get_close_matches(path[:200], known, n=1, cutoff=0.6)
    if alike:
        return f"did you mean {alike[0]}?"
    return f"known: {', '.join(inside or [name for name in known if '.' not in name])}"
