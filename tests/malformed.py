"""Malformed run files: each setting by each kind of wrong value, unknown keys, wrong YAML."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from treerl.config.resolve import dump, resolve

# values that are wrong for a setting of each type, whatever its range
WRONG: dict[type, tuple[Any, ...]] = {
    bool: (2, -1, "maybe", "", [], [True], {}, {"a": 1}, 0.5, None),
    int: ("many", "", [], [3], {}, {"a": 1}, 0.5, -(10**9), 10**30, float("nan"), True, None),
    float: ("much", "", [], [1.0], {}, {"a": 1}, float("nan"), float("-inf"), True, None),
    str: ([], ["a"], {}, {"a": 1}, 3, 0.5, True, "no such thing\x07"),
}
# numbers for which null is right, too
NULLABLE = {"backbone.max_sequence_length"}
SYNTAX = {
    "tab": "train:\n\titerations: 3\n",
    "twice": "seed: 1\nseed: 2\n",
    "twice within": "train:\n  iterations: 1\n  iterations: 2\n",
    "anchor": "train: &a\n  iterations: 1\nenv: *a\n",
    "tag": "seed: !!python/object/apply:os.system ['true']\n",
    "list": "- seed: 1\n",
    "text": "only words\n",
    "open": "train: {iterations: 3\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "merge": "train:\n  <<: {iterations: 3}\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000 + "\n",
    "number key": "3: 4\n",
    "null key": "null: 4\n",
}


@dataclass(frozen=True)
class Case:
    """A file, and the path that its error must name ("" where the text is no mapping at all)."""

    path: str
    text: str


def cases() -> Iterator[Case]:
    """Every malformed file, the same in every run."""
    plain = yaml.safe_load(dump(resolve(None, {}, [])))
    for path, value in leaves(plain):
        for wrong in WRONG.get(type(value), ()):
            if wrong is None and path in NULLABLE:
                continue
            yield Case(path, yaml.safe_dump(nested(path, wrong)))
        yield Case(f"{path}x", yaml.safe_dump(nested(f"{path}x", value)))
        yield Case(path, yaml.safe_dump(nested(f"{path}.deeper", 1)))
    for section, value in plain.items():
        if isinstance(value, dict):
            for wrong in (3, True, ["a", "a"], "no such\x07"):
                yield Case(section, yaml.safe_dump({section: wrong}))
    for text in SYNTAX.values():
        yield Case("", text)


def leaves(plain: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The settings by dotted path."""
    for key, value in plain.items():
        path = f"{above}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def nested(path: str, value: Any) -> dict[str, Any]:
    """A value under its dotted path."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)
