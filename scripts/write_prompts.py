"""Writes the built-in prompts from a grammar: `scenes` for pictures and `clips` for videos.

    python scripts/write_prompts.py            # treerl/prompts/{scenes,clips}-{train,heldout}.txt

scene   := (being | thing) [setting] ["," view] ["," light] ["," style]       six of ten
binding := a colour object relation a colour object ["," style]               two of ten
count   := number counted [setting] ["," style]                               one of ten
text    := carrier that says "words" [setting] ["," style]                    one of ten
clip    := (being | thing) motion [setting] ["," camera] ["," light]

Seeded. What is held out is unseen as a pair: no subject of a held-out prompt meets its setting
(of a binding: its other
object, of a count: its number, of a text: its words) in training.
"""

import argparse
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import grammar
import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "treerl" / "prompts"
HELD_OUT = 10  # one pair in so many
Pair = tuple[str, str]


class Draw:
    """Seeded choices from the grammar's lists."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def one(self, *lists: str) -> str:
        """One word of one of the lists, each word as likely."""
        words = [word.strip() for text in lists for word in text.split(", ")]
        return words[int(self.random.integers(len(words)))]

    def maybe(self, chance: float, text: str) -> str:
        """That text, or nothing."""
        return text if self.random.random() < chance else ""


Maker = Callable[[Draw], tuple[str, Pair]]


def scene(draw: Draw) -> tuple[str, Pair]:
    """A being or a thing somewhere."""
    subject, setting = draw.one(grammar.BEINGS, grammar.THINGS), draw.one(grammar.SETTINGS)
    text = (
        subject + draw.maybe(0.85, f" {setting}") + draw.maybe(0.35, f", {draw.one(grammar.VIEWS)}")
    )
    text += draw.maybe(0.4, f", {draw.one(grammar.LIGHTS)}") + draw.maybe(
        0.6, f", {draw.one(grammar.STYLES)}"
    )
    return text, (subject, setting)


def binding(draw: Draw) -> tuple[str, Pair]:
    """Two objects, each of a colour of its own, in a relation."""
    first, second = draw.one(grammar.OBJECTS), draw.one(grammar.OBJECTS)
    while second == first:
        second = draw.one(grammar.OBJECTS)
    colours = [draw.one(grammar.COLOURS), draw.one(grammar.COLOURS)]
    bound, other = (
        f"{article(colour)} {colour} {thing}"
        for colour, thing in zip(colours, (first, second), strict=True)
    )
    relation = draw.one(grammar.RELATIONS)
    return f"{bound} {relation} {other}" + draw.maybe(0.3, f", {draw.one(grammar.STYLES)}"), (
        first,
        second,
    )


def count(draw: Draw) -> tuple[str, Pair]:
    """So many of something."""
    number, things = draw.one(grammar.NUMBERS), draw.one(grammar.COUNTED)
    rest = draw.maybe(0.6, f" {draw.one(grammar.SETTINGS)}") + draw.maybe(
        0.4, f", {draw.one(grammar.STYLES)}"
    )
    return f"{number} {things}{rest}", (number, things)


def text(draw: Draw) -> tuple[str, Pair]:
    """Words to be rendered."""
    carrier, words = draw.one(grammar.CARRIERS), draw.one(grammar.WORDS)
    rest = draw.maybe(0.5, f" {draw.one(grammar.SETTINGS)}") + draw.maybe(
        0.3, f", {draw.one(grammar.STYLES)}"
    )
    return f'{carrier} that says "{words}"{rest}', (carrier, words)


def clip(draw: Draw) -> tuple[str, Pair]:
    """Something that moves."""
    kind = ("being", "thing")[int(draw.random.integers(2))]
    subject = draw.one(grammar.BEINGS if kind == "being" else grammar.THINGS)
    setting = draw.one(grammar.SETTINGS)
    line = f"{subject} {draw.one(grammar.MOTIONS[kind])}" + draw.maybe(0.85, f" {setting}")
    line += draw.maybe(0.6, f", {draw.one(grammar.CAMERAS)}") + draw.maybe(
        0.4, f", {draw.one(grammar.LIGHTS)}"
    )
    return line, (subject, setting)


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def held_out(pair: Pair) -> bool:
    """Whether a pair is for evaluation: a function of the pair alone."""
    return int(hashlib.sha256("|".join(pair).encode()).hexdigest(), 16) % HELD_OUT == 0


def written(makers: Sequence[Maker], train: int, heldout: int) -> tuple[list[str], list[str]]:
    """So many different prompts for training and for evaluation."""
    draw = Draw(0)
    parts: tuple[dict[str, None], dict[str, None]] = ({}, {})
    while len(parts[0]) < train or len(parts[1]) < heldout:
        line, pair = makers[int(draw.random.integers(len(makers)))](draw)
        held = held_out(pair)
        # a subject without its setting may be drawn with pairs of both sides
        if len(parts[held]) < (train, heldout)[held] and line not in parts[not held]:
            parts[held][line] = None
    return list(parts[0]), list(parts[1])


SETS = {
    "scenes": ((scene,) * 6 + (binding,) * 2 + (count, text), 3000, 300),
    "clips": ((clip,), 1500, 150),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=FOLDER)
    folder = parser.parse_args().output
    for name, (makers, train, heldout) in SETS.items():
        for part, lines in zip(("train", "heldout"), written(makers, train, heldout), strict=True):
            (folder / f"{name}-{part}.txt").write_text(
                "".join(f"{line}\n" for line in lines), encoding="utf-8"
            )


if __name__ == "__main__":
    main()
