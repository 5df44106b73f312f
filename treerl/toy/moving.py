"""The world of moving shapes: "a red circle moves left", and how such a video is drawn."""

from collections.abc import Sequence

import torch
from torch import Tensor

from treerl.toy.caption import Caption, indices
from treerl.toy.drawing import COLOURS, JITTER, PIXELS, SIZES, blank, coverage, paint, within

DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
FRAMES = 5  # one, and the four more that a video autoencoder of the Wan family takes at once
# how far the centroid goes in all; half of it lies before the centre of the canvas
TRAVEL = (0.32, 0.40)


class MovingCaption(Caption):
    """A shape that moves some way."""

    subject = "a moving shape"
    template = "a {colour} {shape} moves {where}"
    wheres = tuple(DIRECTIONS)


def render(
    captions: Sequence[MovingCaption],
    generator: torch.Generator,
    frames: int = FRAMES,
    pixels: int = PIXELS,
) -> Tensor:
    """One video for each caption, `[N, frames, 3, pixels, pixels]` in [0, 1]; way and size vary."""
    count = len(captions)
    jitter = (torch.rand(count, 4, generator=generator) * 2 - 1).unbind(1)
    colour, shape, direction = indices(captions).unbind(1)
    moment = torch.linspace(-0.5, 0.5, frames) if frames > 1 else torch.zeros(1)
    way = torch.tensor(list(DIRECTIONS.values()))[direction]
    path = moment * within(TRAVEL, jitter[3])[:, None]  # [N, frames], along the way
    x = 0.5 + JITTER * jitter[0][:, None] + path * way[:, 0, None]
    y = 0.5 + JITTER * jitter[1][:, None] + path * way[:, 1, None]
    size = within(SIZES, jitter[2]).repeat_interleave(frames)
    outlines = coverage(x.flatten(), y.flatten(), size, pixels)
    alpha = outlines[torch.arange(count * frames), shape.repeat_interleave(frames)]
    colours = torch.tensor(list(COLOURS.values()))[colour].repeat_interleave(frames, dim=0)
    videos = paint(blank(count * frames, pixels), alpha, colours)
    return videos.reshape(count, frames, 3, pixels, pixels)
