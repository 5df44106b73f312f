"""The tuning that every recipe of a comparison gets alike: settings, each tried once a seed."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treerl.bench.variant import Variant, split
from treerl.config import yaml
from treerl.errors import InputError, shorten, shown
from treerl.registry import nearest

ALL = "all"  # the section of a sweep file that every recipe takes part in
Settings = tuple[str, ...]  # path=value
Axis = tuple[Settings, ...]  # the alternatives of one question


@dataclass(frozen=True)
class Sweep:
    """Axes for all recipes, and axes for some; a recipe tries each value with each other one.

    `branching_factor` and `depth` of a tree, and the trees of a prompt, are both leaves a prompt:
    so a file may give each recipe an axis of its own, as long as all try equally many settings.
    """

    shared: tuple[Axis, ...] = ()
    special: Mapping[str, tuple[Axis, ...]] = field(default_factory=dict)  # by recipe or variant

    def settings(self, variant: Variant) -> list[Settings]:
        """All that is tried for a variant."""
        special = self.special.get(variant.label, self.special.get(variant.recipe, ()))
        choices = itertools.product(*self.shared, *special)
        return [tuple(itertools.chain.from_iterable(choice)) for choice in choices]

    def refuse_unequal(self, variants: Sequence[Variant]) -> None:
        """`InputError` where one recipe would be tuned more than another."""
        known = {variant.label for variant in variants} | {variant.recipe for variant in variants}
        for name in self.special:
            if name not in known:
                hint = nearest(name, [ALL, *sorted(known)])
                raise InputError(f"--sweep: {shown(name)}: no recipe of --recipes; {hint}")
        counts = {variant.label: len(self.settings(variant)) for variant in variants}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{count} for {shown(label)}" for label, count in counts.items())
            raise InputError(f"--sweep: expected as many settings for every recipe, got {told}")


def parse(texts: Sequence[str]) -> Sweep | None:
    """The sweep of `--sweep dotted.path=value,value` and `--sweep FILE`; None without any."""
    shared: list[Axis] = []
    special: dict[str, tuple[Axis, ...]] = {}
    for text in texts:
        path, equals, values = text.partition("=")
        if equals:
            shared.append(
                tuple((f"{path}={value}",) for value in split(values, f"--sweep: {shown(path)}"))
            )
            continue
        if not Path(text).exists():
            expected = "dotted.path=value,value or a file"
            raise InputError(f"--sweep: expected {expected}, got {shorten(text)}")
        for name, axes in _read(Path(text)):
            if name == ALL:
                shared += axes
            else:
                special[name] = (*special.get(name, ()), *axes)
    return Sweep(tuple(shared), special) if texts else None


def _read(path: Path) -> Iterator[tuple[str, tuple[Axis, ...]]]:
    """The sections of a sweep file, with their axes."""
    for name, section in yaml.read(path).value.items():
        if not isinstance(section.value, Mapping):
            got = shorten(section.value)
            raise InputError(
                f"{section.where}: {shown(name)}: expected axes with their values, got {got}"
            )
        axes = []
        for key, item in section.value.items():
            values = item.plain()
            if not isinstance(values, list) or not values:
                raise InputError(
                    f"{item.where}: {shown(name)}.{shown(key)}: expected a list of values, got "
                    f"{shorten(values)}"
                )
            axes.append(tuple(_settings(key, value) for value in values))
        yield name, tuple(axes)


def _settings(key: str, value: Any) -> Settings:
    """What a value of an axis sets: the axis itself, or all that a mapping names."""
    if isinstance(value, Mapping):
        return tuple(f"{path}={_text(inner)}" for path, inner in value.items())
    return (f"{key}={_text(value)}",)


def _text(value: Any) -> str:
    """A value as `--set` takes it: JSON, which YAML reads, or a bare word."""
    if isinstance(value, str) and yaml.parse(value, "", lines=False).value == value:
        return value
    return json.dumps(value)
