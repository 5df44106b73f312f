"""The world of captioned shapes: "a red circle on the left", and how such an image is drawn."""

from collections.abc import Sequence

import torch
from torch import Tensor

from treerl.toy.caption import Caption, indices
from treerl.toy.drawing import COLOURS, JITTER, PIXELS, SIZES, blank, coverage, paint, within

# where the centroid goes; x to the right, y downwards, the canvas is 1 x 1
PLACES: dict[str, tuple[float, float]] = {
    "on the left": (0.30, 0.50),
    "on the right": (0.70, 0.50),
    "at the top": (0.50, 0.30),
    "at the bottom": (0.50, 0.70),
    "in the centre": (0.50, 0.50),
}


class ShapeCaption(Caption):
    """A shape at a place."""

    subject = "a shape"
    template = "a {colour} {shape} {where}"
    wheres = tuple(PLACES)


def render(
    captions: Sequence[ShapeCaption], generator: torch.Generator, pixels: int = PIXELS
) -> Tensor:
    """One image for each caption, `[N, 3, pixels, pixels]` in [0, 1]; place and size vary."""
    jitter = (torch.rand(len(captions), 3, generator=generator) * 2 - 1).unbind(1)
    colour, shape, place = indices(captions).unbind(1)
    centre = torch.tensor(list(PLACES.values()))[place]
    x = centre[:, 0] + JITTER * jitter[0]
    y = centre[:, 1] + JITTER * jitter[1]
    outlines = coverage(x, y, within(SIZES, jitter[2]), pixels)
    alpha = outlines[torch.arange(len(captions)), shape]
    return paint(blank(len(captions), pixels), alpha, torch.tensor(list(COLOURS.values()))[colour])
