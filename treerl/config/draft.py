"""Settings gathered from several sources, later ones over earlier ones, before anything is checked."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from treerl.config.schema import FIELDS, MAPPINGS, SECTIONS
from treerl.config.setting import shorten
from treerl.config.textfile import shown
from treerl.config.yamlfile import Item


@dataclass
class Draft:
    """Values and origins by dotted path; the origins are in the order in which they were written, last wins."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def put(self, path: str, item: Item) -> None:
        """Write an item at a dotted path, "" being the top; what does not belong there becomes an error."""
        mapping, key = _split(path)
        if path == "" or path in SECTIONS:
            self._put_section(path, item)
        elif path in MAPPINGS:
            self._put_mapping(path, item)
        elif path in FIELDS:
            self._note(path, item)
            self.values[path] = item.plain()
        elif mapping and key:
            self._note(path, item)
            self.values[mapping] = {**self.get(mapping), key: item.plain()}
        else:
            # looking for likely names is slow, and after a hundred no reader is left
            hint = f"; {_hint(path)}" if len(self.errors) < 100 else ""
            self.errors.append(f"{item.where}: {shown(path)}: unknown key{hint}")

    def get(self, path: str) -> Any:
        """The value at a field's path, or its default."""
        return (
            self.values[path]
            if path in self.values
            else FIELDS[path].get_default(call_default_factory=True)
        )

    def where(self, *paths: str) -> str:
        """Where the last written of these paths was written."""
        order = list(self.sources)
        written = [path for path in paths if path in self.sources]
        return self.sources[max(written, key=order.index)] if written else "default"

    def nested(self) -> dict[str, Any]:
        """The values as sections of settings."""
        found: dict[str, Any] = {}
        for path, value in self.values.items():
            section, _, key = path.rpartition(".")
            (found.setdefault(section, {}) if section else found)[key] = value
        return found

    def _put_section(self, path: str, item: Item) -> None:
        if not isinstance(item.value, dict):
            self.errors.append(
                f"{item.where}: {path}: expected a mapping of settings, got {shorten(item.value)}"
            )
            return
        for key, inner in item.value.items():
            below = f"{path}.{key}" if path else key
            if not key or "." in key:  # a second spelling would hide duplicates
                hint = (
                    f"write it nested, as --set {below}=... does"
                    if below in FIELDS
                    else _hint(below)
                )
                self.errors.append(f"{inner.where}: {shown(below)}: unknown key; {hint}")
            else:
                self.put(below, inner)

    def _put_mapping(self, path: str, item: Item) -> None:
        """A mapping replaces the one below it: a recipe's rewards do not linger under one's own."""
        if not isinstance(item.value, dict):
            self.errors.append(
                f"{item.where}: {path}: expected a mapping, got {shorten(item.value)}"
            )
            return
        self._note(path, item)
        for key, inner in item.value.items():
            self._note(f"{path}.{key}", inner)
        self.values[path] = item.plain()

    def _note(self, path: str, item: Item) -> None:
        self.sources.pop(path, None)  # so that the order is that of the last write
        self.sources[path] = item.where


def wrap(value: object, where: str) -> Item:
    """Plain data as an item, all of it from one place."""
    if isinstance(value, Mapping):
        return Item({str(key): wrap(inner, where) for key, inner in value.items()}, where)
    if isinstance(value, list | tuple):
        return Item([wrap(inner, where) for inner in value], where)
    return Item(str(value) if isinstance(value, PurePath) else value, where)


def _split(path: str) -> tuple[str, str]:
    """`rewards.clip` as mapping and key; two empty texts for every path that is not inside a mapping."""
    for mapping in MAPPINGS:
        if path.startswith(f"{mapping}."):
            return mapping, path[len(mapping) + 1 :]
    return "", ""


def _hint(path: str) -> str:
    """The nearest known path: the same word in another section, else the most alike."""
    section, _, key = path[:200].rpartition(".")
    if section in MAPPINGS:
        return f"expected a name after {section}."
    if section in FIELDS:
        return f"{section} is a single value"
    known = [*FIELDS, *SECTIONS]
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
