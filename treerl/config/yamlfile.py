"""Reads YAML as plain data: no tags, aliases, duplicate keys or bombs, and every value knows where it was written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from treerl.config import textfile
from treerl.errors import InputError

_BYTES, _NODES, _DEPTH = 1_000_000, 10_000, 20
_DIGITS = 400  # no setting is longer, and Python refuses to read more than 4,300
_TAG = "tag:yaml.org,2002:"

# The core schema of YAML 1.2, less octal and hexadecimal: `no`, `08` and `1:30` are texts, 1e-4 is a number.
_KINDS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (
        r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


@dataclass(frozen=True)
class Item:
    """A value and where it was written; the values of a mapping are items themselves."""

    value: Any
    where: str

    def plain(self) -> Any:
        """The value without its origins."""
        if isinstance(self.value, Mapping):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


class _Reader(yaml.SafeLoader):
    """Composes nodes within limits; nothing is ever constructed from a tag."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own way of declaring them)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = 0
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _Refused("aliases and anchors are not allowed", mark)
        if event.tag is not None:
            raise _Refused("tags are not allowed", mark)
        self.nodes += 1
        self.depth += 1
        if self.nodes > _NODES:
            raise _Refused(f"more than {_NODES} values", mark)
        if self.depth > _DEPTH:
            raise _Refused(f"nested more than {_DEPTH} deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Refused(yaml.MarkedYAMLError):
    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Writer(yaml.SafeDumper):
    """Quotes what YAML 1.1 or this module's reader would take for something else than text."""


for _name, (_pattern, _first) in _KINDS.items():
    for _class in (_Reader, _Writer):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^({_pattern})$"), _first)


def read(path: Path) -> Item:
    """The mapping in a YAML file."""
    item = parse(textfile.read(path, _BYTES), textfile.shown(path))
    if not isinstance(item.value, Mapping):
        raise InputError(
            f"{item.where}: expected a mapping of settings at the top, got something else"
        )
    return item


def parse(text: str, source: str, lines: bool = True) -> Item:
    """One YAML document as an item; `source` and, unless switched off, the line become its `where`."""
    try:
        reader = _Reader(text)
        node = reader.get_single_node()
        where = f"{source}:1" if lines else source
        return Item(None, where) if node is None else _item(node, source, lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _refuse(source, mark.line + 1 if lines and mark else None, error.problem or error.context)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if lines else None
        _refuse(source, line, f"character {ord(text[error.position]):#x} is not allowed")
    except (
        ValueError,
        OverflowError,
    ) as error:  # escapes such as "\UFFFFFFFF", which PyYAML does not check
        _refuse(source, None, f"not YAML: {error}")


def write(data: object) -> str:
    """Data as YAML text that `parse` reads back unchanged."""
    return yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=2**20)


def _refuse(source: str, line: int | None, problem: object) -> NoReturn:
    where = source if line is None else f"{source}:{line}"
    raise InputError(f"{where}: {' '.join(str(problem).split())}") from None


def _item(node: Any, source: str, lines: bool) -> Item:
    where = f"{source}:{node.start_mark.line + 1}" if lines else source
    if isinstance(node, yaml.MappingNode):
        return Item(_mapping(node, source, lines), where)
    if isinstance(node, yaml.SequenceNode):
        return Item([_item(child, source, lines) for child in node.value], where)
    return Item(_scalar(node.tag.removeprefix(_TAG), node.value), where)


def _mapping(node: yaml.MappingNode, source: str, lines: bool) -> dict[str, Item]:
    found: dict[str, Item] = {}
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused("expected a name as key, got a list or a mapping", key.start_mark)
        if key.value in found:
            text = (
                f"duplicate key {textfile.shown(key.value)} on lines {first[key.value]} and {line}"
            )
            raise _Refused(text, key.start_mark)
        first[key.value] = line
        item = _item(value, source, lines)
        # a value on its own line is still looked for at its key
        found[key.value] = Item(item.value, f"{source}:{line}" if lines else source)
    return found


def _scalar(kind: str, text: str) -> Any:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text) if len(text) <= _DIGITS else text
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
