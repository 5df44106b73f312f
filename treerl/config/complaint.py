"""Words for what is wrong with a draft: one line each, with the source, the dotted path, what was expected and got."""

from typing import Any

from pydantic import ValidationError

from treerl.config.draft import Draft
from treerl.config.schema import FIELDS, MAPPINGS, SECTIONS
from treerl.config.setting import describe, shorten
from treerl.config.textfile import shown

_INSIDE = {
    "rewards": "a finite number other than 0"
}  # what a mapping's values are; the others are all options
_OPTION = "a finite number, a text or true/false"


def complaints(error: ValidationError, draft: Draft) -> list[str]:
    """One line for each setting that is refused, and for each conflict when no setting is."""
    lines: list[str] = []
    for entry in error.errors(include_url=False):
        if entry["type"] != "conflict":
            lines.append(_refusal(entry, draft))
        elif not draft.errors:  # a conflict with a setting that was misspelt would mislead
            for conflict in entry["ctx"]["conflicts"]:
                where = draft.where(*conflict.paths)
                lines.append(f"{where}: {', '.join(conflict.paths)}: {conflict.message}")
    return list(dict.fromkeys(lines))  # a union refuses once for each of its arms


def _refusal(entry: Any, draft: Draft) -> str:
    path, key = _path(entry["loc"])
    full = path if key is None else f"{path}.{key}"
    where = draft.sources.get(full) or draft.where(path)
    if entry["type"] == "name":
        return f"{where}: {shown(full)}: {entry['ctx']['why']}"
    if entry["loc"][-1] == "[key]":
        return f"{where}: {shown(full)}: expected a name without control characters, got {shorten(key)}"
    value = draft.get(path)
    if key is None:
        return f"{where}: {path}: expected {describe(FIELDS[path])}, got {shorten(value)}"
    return (
        f"{where}: {shown(full)}: expected {_INSIDE.get(path, _OPTION)}, got {shorten(value[key])}"
    )


def _path(loc: tuple[int | str, ...]) -> tuple[str, str | None]:
    """A field's dotted path and, inside a mapping, the key; pydantic's own additions are dropped."""
    parts = [str(part) for part in loc]
    size = 2 if parts[0] in SECTIONS else 1
    path = ".".join(parts[:size])
    return path, parts[size] if path in MAPPINGS and len(parts) > size else None
