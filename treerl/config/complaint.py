"""Words for what is wrong with a draft: source, dotted path, what was expected and what came."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from treerl.config.draft import Draft
from treerl.config.parameters import Refusal
from treerl.config.schema import FIELDS, SECTIONS
from treerl.config.setting import describe, shorten
from treerl.config.textfile import shown


def complaints(error: ValidationError, draft: Draft) -> list[str]:
    """One line for each setting that is refused, and for each conflict when no setting is."""
    lines: list[str] = []
    for entry in error.errors(include_url=False):
        if entry["type"] == "plugin":
            lines += _plugin(entry, draft)
        elif entry["type"] != "conflict":
            lines.append(_refusal(entry, draft))
        elif not draft.errors:  # a conflict with a setting that was misspelt would mislead
            for conflict in entry["ctx"]["conflicts"]:
                where = draft.where(*conflict.paths)
                lines.append(f"{where}: {', '.join(conflict.paths)}: {conflict.message}")
    return list(dict.fromkeys(lines))  # a union refuses once for each of its arms


def _plugin(entry: Any, draft: Draft) -> Iterator[str]:
    path = ".".join(str(part) for part in entry["loc"])
    refusals: list[Refusal] = entry["ctx"]["refusals"]
    for refusal in refusals:
        full = f"{path}.{refusal.key}" if refusal.key else path
        where = draft.sources.get(full) or draft.where(full) or draft.where(path)
        if where == "default":
            where = draft.where(path)
        yield f"{where}: {shown(full)}: {refusal.text}"


def _refusal(entry: Any, draft: Draft) -> str:
    parts = [str(part) for part in entry["loc"]]
    path = ".".join(parts[: 2 if parts[0] in SECTIONS else 1])
    where = draft.where(path)
    if entry["type"] == "name":
        return f"{where}: {shown(path)}: {entry['ctx']['why']}"
    return f"{where}: {path}: expected {describe(FIELDS[path])}, got {shorten(draft.get(path))}"
