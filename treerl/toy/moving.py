"""The world of moving shapes: its captions ("a red circle moves left"), and how each of them is drawn and moves."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.errors import InputError
from treerl.toy.shapes import COLOURS, JITTER, PIXELS, SHAPES, SIZES, blank, coverage, paint

DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
FRAMES = 5  # one, and the four more that a video autoencoder of the Wan family takes at once
TRAVEL = (
    0.32,
    0.40,
)  # how far the centroid goes in all; half of it lies before the centre of the canvas
_GRAMMAR = f"a {'|'.join(COLOURS)} {'|'.join(SHAPES)} moves {'|'.join(DIRECTIONS)}"


@dataclass(frozen=True)
class Caption:
    """What one video shows."""

    colour: str
    shape: str
    direction: str

    @property
    def text(self) -> str:
        """The caption as a prompt."""
        return f"a {self.colour} {self.shape} moves {self.direction}"

    @classmethod
    def parse(cls, text: str) -> "Caption":
        """The caption that `text` spells; `InputError` says what was expected."""
        words = text.lower().split(maxsplit=5)
        caption = cls(words[1], words[2], words[4]) if len(words) == 5 else None
        known = (
            caption
            and caption.colour in COLOURS
            and caption.shape in SHAPES
            and caption.direction in DIRECTIONS
        )
        if caption is None or not known or (words[0], words[3]) != ("a", "moves"):
            raise InputError(
                f"prompt {text!r} is not a caption of a moving shape; expected: {_GRAMMAR}"
            )
        return caption


def every_caption() -> list[Caption]:
    """All captions there are, in a fixed order."""
    return [Caption(*parts) for parts in itertools.product(COLOURS, SHAPES, DIRECTIONS)]


def render(
    captions: Sequence[Caption],
    generator: torch.Generator,
    frames: int = FRAMES,
    pixels: int = PIXELS,
) -> Tensor:
    """One video for each caption, `[N, frames, 3, pixels, pixels]` in [0, 1]; path, speed and size vary a little."""
    count = len(captions)
    jitter = (torch.rand(count, 4, generator=generator) * 2 - 1).unbind(1)
    size = _within(SIZES, jitter[2])
    moment = torch.linspace(-0.5, 0.5, frames) if frames > 1 else torch.zeros(1)
    way = torch.tensor([DIRECTIONS[caption.direction] for caption in captions]).reshape(-1, 2)
    path = moment * _within(TRAVEL, jitter[3])[:, None]  # [N, frames], along the way
    x, y = (0.5 + JITTER * jitter[axis][:, None] + path * way[:, axis, None] for axis in (0, 1))
    shapes = coverage(x.flatten(), y.flatten(), size.repeat_interleave(frames), pixels)
    which = torch.tensor([SHAPES.index(caption.shape) for caption in captions], dtype=torch.long)
    alpha = shapes[torch.arange(count * frames), which.repeat_interleave(frames)]
    colours = torch.tensor([COLOURS[caption.colour] for caption in captions]).reshape(-1, 3)
    painted = paint(blank(count * frames, pixels), alpha, colours.repeat_interleave(frames, dim=0))
    return painted.reshape(count, frames, 3, pixels, pixels)


def _within(bounds: tuple[float, float], place: Tensor) -> Tensor:
    """Between the bounds, for places in [-1, 1]."""
    return (bounds[0] + bounds[1]) / 2 + place * (bounds[1] - bounds[0]) / 2
