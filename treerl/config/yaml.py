"""Reads YAML as plain data: no tags, aliases, duplicates or bombs; every value knows its line."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from treerl.config import textfile
from treerl.errors import InputError, shown

_BYTES = 1_000_000
_VALUES = 10_000
_DEPTH = 20
_DIGITS = 400  # no setting is longer, and Python refuses to read more than 4,300
_TAG = "tag:yaml.org,2002:"

# The core schema of YAML 1.2, less octal and hexadecimal: `no`, `08` and `1:30` are texts, 1e-4 is
# a number.
_KINDS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (
        r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


@dataclass(frozen=True)
class Item:
    """A value and where it was written; the values of a mapping are items themselves."""

    value: Any
    where: str
    partial: bool = False  # a mapping that a dotted path implies: it adds to what is there

    def plain(self) -> Any:
        """The value without its origins."""
        if isinstance(self.value, Mapping):
            return {key: item.plain() for key, item in self.value.items()}
        return self.value

    @classmethod
    def of(cls, value: object, where: str) -> "Item":
        """Plain data as an item, all of it from one place."""
        if isinstance(value, Mapping):
            return cls({str(key): cls.of(inner, where) for key, inner in value.items()}, where)
        return cls(str(value) if isinstance(value, PurePath) else value, where)


class _Writer(yaml.SafeDumper):
    """Quotes what YAML 1.1 or this module's reader would take for something else than text."""


for _kind, (_pattern, _first) in _KINDS.items():
    _Writer.add_implicit_resolver(_TAG + _kind, re.compile(f"^({_pattern})$"), _first)


def read(path: Path) -> Item:
    """The mapping in a YAML file."""
    item = parse(textfile.read(path, _BYTES), shown(path))
    if not isinstance(item.value, Mapping):
        raise InputError(f"{item.where}: expected a mapping of settings at the top")
    return item


def parse(text: str, source: str, lines: bool = True) -> Item:
    """One YAML document; `source` and, unless switched off, the line become its `where`."""
    try:
        return _Document(text, source, lines).item
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if lines and mark else source
        problem = error.problem or error.context
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        where = f"{source}:{line}" if lines else source
        problem = f"character {ord(text[error.position]):#x} is not allowed"
    except (ValueError, OverflowError) as error:  # "\UFFFFFFFF", which PyYAML does not check
        where = source
        problem = f"not YAML: {error}"
    raise InputError(f"{where}: {' '.join(str(problem).split())}")


def write(data: object) -> str:
    """Data as YAML text that `parse` reads back unchanged."""
    return yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=2**20)


class _Refused(yaml.MarkedYAMLError):
    def __init__(self, problem: str, event: Any) -> None:
        super().__init__(problem=problem, problem_mark=event.start_mark)


class _Document:
    """Makes items of PyYAML's events, within limits; no tag is ever looked up."""

    def __init__(self, text: str, source: str, lines: bool) -> None:
        self.source = source
        self.lines = lines
        self.values = 0
        self.events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        next(self.events)  # the start of the stream
        self.item = Item(None, f"{source}:1" if lines else source)
        if isinstance(next(self.events), yaml.DocumentStartEvent):
            self.item = self._item(next(self.events), 1)
            next(self.events)  # the end of the document
            after = next(self.events)
            if isinstance(after, yaml.DocumentStartEvent):
                raise _Refused("but found another document", after)

    def _item(self, event: Any, depth: int) -> Item:
        where = f"{self.source}:{event.start_mark.line + 1}" if self.lines else self.source
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _Refused("aliases and anchors are not allowed", event)
        if event.tag is not None:
            raise _Refused("tags are not allowed", event)
        self.values += 1
        if self.values > _VALUES:
            raise _Refused(f"more than {_VALUES} values", event)
        if depth > _DEPTH:
            raise _Refused(f"nested more than {_DEPTH} deep", event)
        if isinstance(event, yaml.MappingStartEvent):
            return Item(self._mapping(depth), where)
        if isinstance(event, yaml.SequenceStartEvent):
            inside = iter(lambda: next(self.events), None)
            ends = yaml.SequenceEndEvent
            each = itertools.takewhile(lambda event: not isinstance(event, ends), inside)
            return Item([self._item(event, depth + 1).plain() for event in each], where)
        return Item(_scalar(event.value) if event.implicit[0] else event.value, where)

    def _mapping(self, depth: int) -> dict[str, Item]:
        items: dict[str, Item] = {}
        first: dict[str, int] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarEvent):
                raise _Refused("expected a name as key, got a list or a mapping", key)
            self._item(key, depth + 1)  # for its tag and anchor
            name = key.value
            if name in items:
                twice = f"duplicate key {shown(name)} on lines {first[name]} and {line}"
                raise _Refused(twice, key)
            first[name] = line
            value = self._item(next(self.events), depth + 1).value
            # a value on its own line is still looked for at its key
            items[name] = Item(value, f"{self.source}:{line}" if self.lines else self.source)
        return items


def _scalar(text: str) -> Any:
    """The value of a text without quotes."""
    kind = next((kind for kind, (form, _) in _KINDS.items() if re.fullmatch(form, text)), "")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text) if len(text) <= _DIGITS else text
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
