"""The world of captioned shapes: its captions ("a red circle on the left"), and how each of them is drawn."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.errors import InputError

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.89, 0.20, 0.22),
    "yellow": (0.97, 0.77, 0.11),
    "green": (0.16, 0.66, 0.36),
    "blue": (0.15, 0.44, 0.88),
    "purple": (0.56, 0.26, 0.74),
    "black": (0.14, 0.15, 0.19),
}
SHAPES = ("circle", "square", "triangle", "cross")
PLACES: dict[
    str, tuple[float, float]
] = {  # where the centroid goes; x to the right, y downwards, the canvas is 1 x 1
    "on the left": (0.30, 0.50),
    "on the right": (0.70, 0.50),
    "at the top": (0.50, 0.30),
    "at the bottom": (0.50, 0.70),
    "in the centre": (0.50, 0.50),
}
BACKGROUND = (0.965, 0.96, 0.945)
PIXELS = 32
SIZES = (0.28, 0.325)  # square root of the area, so that no shape is given away by its area
JITTER = 0.03
_GRAMMAR = f"a {'|'.join(COLOURS)} {'|'.join(SHAPES)} {'|'.join(PLACES)}"


@dataclass(frozen=True)
class Caption:
    """What one picture shows."""

    colour: str
    shape: str
    place: str

    @property
    def text(self) -> str:
        """The caption as a prompt."""
        return f"a {self.colour} {self.shape} {self.place}"

    @classmethod
    def parse(cls, text: str) -> "Caption":
        """The caption that `text` spells; `InputError` says what was expected."""
        words = text.lower().split(maxsplit=3)
        caption = cls(words[1], words[2], " ".join(words[3].split())) if len(words) == 4 else None
        known = (
            caption
            and caption.colour in COLOURS
            and caption.shape in SHAPES
            and caption.place in PLACES
        )
        if caption is None or not known or words[0] != "a":
            raise InputError(f"prompt {text!r} is not a caption of a shape; expected: {_GRAMMAR}")
        return caption


def every_caption() -> list[Caption]:
    """All captions there are, in a fixed order."""
    return [Caption(*parts) for parts in itertools.product(COLOURS, SHAPES, PLACES)]


def coverage(x: Tensor, y: Tensor, size: Tensor, pixels: int = PIXELS) -> Tensor:
    """How much of each pixel every shape covers, `[N, len(SHAPES), pixels, pixels]`, for `[N]` centroids and sizes."""
    ticks = (torch.arange(pixels, dtype=x.dtype, device=x.device) + 0.5) / pixels
    size = size.reshape(-1, 1, 1)
    across = ((ticks[None, None, :] - x.reshape(-1, 1, 1)) / size).expand(-1, pixels, pixels)
    down = ((ticks[None, :, None] - y.reshape(-1, 1, 1)) / size).expand(-1, pixels, pixels)
    outside = torch.stack(_distances(across, down), dim=1)
    return (0.5 - outside * (size.unsqueeze(1) * pixels)).clamp(0, 1)


def _distances(x: Tensor, y: Tensor) -> list[Tensor]:
    """Signed distances (negative inside) to the outlines of the shapes of unit area round their centroids."""
    wide, high = x.abs(), y.abs()
    circle = (x * x + y * y).sqrt() - 0.5642  # 1 / √π
    square = torch.maximum(wide, high) - 0.5
    triangle = torch.maximum(y, wide * 0.8660 - y * 0.5) - 0.4387  # equilateral: 1 / √(3√3)
    along, thin = 0.6708, 0.2236  # two bars, three times as long as wide: 3 / √20 and 1 / √20
    cross = torch.minimum(
        torch.maximum(wide - along, high - thin), torch.maximum(wide - thin, high - along)
    )
    return [circle, square, triangle, cross]


def paint(images: Tensor, alpha: Tensor, colours: Tensor) -> Tensor:
    """`images` `[N, 3, H, W]` with `colours` `[N, 3]` laid over them where `alpha` `[N, H, W]` says."""
    alpha = alpha.unsqueeze(1)
    return images * (1 - alpha) + colours[:, :, None, None] * alpha


def blank(count: int, pixels: int = PIXELS) -> Tensor:
    """Empty pictures `[count, 3, pixels, pixels]`."""
    return torch.tensor(BACKGROUND).reshape(1, 3, 1, 1).expand(count, 3, pixels, pixels).clone()


def render(captions: Sequence[Caption], generator: torch.Generator, pixels: int = PIXELS) -> Tensor:
    """One picture for each caption, `[N, 3, pixels, pixels]` in [0, 1]; position and size vary a little."""
    jitter = (torch.rand(len(captions), 3, generator=generator) * 2 - 1).unbind(1)
    places = torch.tensor([PLACES[caption.place] for caption in captions])
    size = (SIZES[0] + SIZES[1]) / 2 + jitter[2] * (SIZES[1] - SIZES[0]) / 2
    shapes = coverage(
        places[:, 0] + JITTER * jitter[0], places[:, 1] + JITTER * jitter[1], size, pixels
    )
    which = torch.tensor([SHAPES.index(caption.shape) for caption in captions])
    colours = torch.tensor([COLOURS[caption.colour] for caption in captions])
    return paint(blank(len(captions), pixels), shapes[torch.arange(len(captions)), which], colours)
