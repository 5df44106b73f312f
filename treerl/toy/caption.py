"""What a caption of the toy worlds is: a colour, a shape, and where that shape lies or goes."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from treerl.errors import InputError
from treerl.toy.drawing import COLOURS, SHAPES


@dataclass(frozen=True)
class Caption:
    """What one image or video shows; a world subclasses it and says what `where` may be."""

    colour: str
    shape: str
    where: str  # the place in an image, the direction in a video

    subject: ClassVar[str]  # what such a caption describes, for the message of an error
    template: ClassVar[str]  # the caption as a text with {colour}, {shape} and {where}
    wheres: ClassVar[tuple[str, ...]]

    @property
    def text(self) -> str:
        """The caption as a prompt."""
        return self.template.format(colour=self.colour, shape=self.shape, where=self.where)

    @classmethod
    def every(cls) -> list[Self]:
        """All captions of this world, in a fixed order."""
        return [cls(*parts) for parts in itertools.product(COLOURS, SHAPES, cls.wheres)]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The caption that `text` spells; `InputError` says what was expected."""
        caption = cls._by_text().get(" ".join(text.lower().split()))
        if caption is None:
            grammar = cls.template.format(
                colour="|".join(COLOURS), shape="|".join(SHAPES), where="|".join(cls.wheres)
            )
            raise InputError(
                f"prompt {text!r} is not a caption of {cls.subject}; expected: {grammar}"
            )
        return caption

    @classmethod
    @functools.cache
    def _by_text(cls) -> dict[str, Self]:
        return {caption.text: caption for caption in cls.every()}


def indices(captions: Sequence[Caption]) -> Tensor:
    """Which colour, shape and `where` each caption names, `[N, 3]` int64."""
    colours = list(COLOURS)
    rows = [
        (
            colours.index(caption.colour),
            SHAPES.index(caption.shape),
            caption.wheres.index(caption.where),
        )
        for caption in captions
    ]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
