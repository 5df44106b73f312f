"""The recipes of a comparison, each with settings of its own: NAME[:dotted.path=value,...]."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from treerl.errors import InputError, shorten, shown

_OPENING = "[{("
_CLOSING = ")}]"
_SETTING = re.compile(r"[^:=]+=.*", re.S)  # no colon before the first equals sign


@dataclass(frozen=True)
class Variant:
    """A recipe, and what is set for it beyond what is set for all."""

    recipe: str
    settings: tuple[str, ...] = ()  # path=value

    @property
    def label(self) -> str:
        """As it is written: `mixgrpo:tree.trees_per_prompt=9`."""
        return f"{self.recipe}:{','.join(self.settings)}" if self.settings else self.recipe

    def with_settings(self, settings: Sequence[str]) -> "Variant":
        """The same recipe with more settings, over its own."""
        return Variant(self.recipe, (*self.settings, *settings))


def variants(texts: Sequence[str]) -> tuple[Variant, ...]:
    """The variants of `["treegrpo,mixgrpo:tree.trees_per_prompt=9,train.learning_rate=4e-4"]`.

    A part that is a setting belongs to the recipe before it.
    """
    listed: list[Variant] = []
    for text in texts:
        parts = split(text, "--recipes")
        if _SETTING.fullmatch(parts[0]):
            raise InputError(
                f"--recipes: expected a recipe before its settings, got {shorten(parts[0])}"
            )
        for part in parts:
            if _SETTING.fullmatch(part):
                listed[-1] = listed[-1].with_settings([part])
                continue
            name, _, setting = part.partition(":")
            listed.append(Variant(name, (setting,) if setting else ()))
    labels = [variant.label for variant in listed]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"--recipes: expected each recipe once, got {shown(label)} twice")
    return tuple(listed)


def split(text: str, option: str) -> list[str]:
    """The parts between commas, but for commas in brackets: `a,b=[1,2]` is a and b=[1,2]."""
    parts = [""]
    depth = 0
    for letter in text:
        depth += (letter in _OPENING) - (letter in _CLOSING)
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    parts = [part.strip() for part in parts]
    if "" in parts:
        raise InputError(f"{option}: expected texts between commas, got {shorten(text)}")
    return parts
