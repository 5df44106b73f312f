"""How coloured shapes are drawn on a light ground: outlines, anti-aliased coverage and paint."""

import torch
from torch import Tensor

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.89, 0.20, 0.22),
    "yellow": (0.97, 0.77, 0.11),
    "green": (0.16, 0.66, 0.36),
    "blue": (0.15, 0.44, 0.88),
    "purple": (0.56, 0.26, 0.74),
    "black": (0.14, 0.15, 0.19),
}
SHAPES = ("circle", "square", "triangle", "cross")
BACKGROUND = (0.965, 0.96, 0.945)
PIXELS = 32
SIZES = (0.28, 0.325)  # square root of the area, so that no shape is given away by its area
JITTER = 0.03  # how far from its place a shape may lie; the canvas is 1 x 1


def coverage(x: Tensor, y: Tensor, size: Tensor, pixels: int = PIXELS, grow: float = 0.0) -> Tensor:
    """The share of each pixel that every shape covers, `[N, len(SHAPES), pixels, pixels]`.

    `x` (to the right), `y` (downwards) and `size` are `[N]`: centroids and square roots of areas.
    The outlines move outwards by `grow` pixels.
    """
    ticks = (torch.arange(pixels, dtype=x.dtype, device=x.device) + 0.5) / pixels
    size = size.reshape(-1, 1, 1)
    across = ((ticks[None, None, :] - x.reshape(-1, 1, 1)) / size).expand(-1, pixels, pixels)
    down = ((ticks[None, :, None] - y.reshape(-1, 1, 1)) / size).expand(-1, pixels, pixels)
    outside = torch.stack(_distances(across, down), dim=1)
    return (0.5 + grow - outside * (size.unsqueeze(1) * pixels)).clamp(0, 1)


def _distances(x: Tensor, y: Tensor) -> list[Tensor]:
    """Signed distances (negative inside) to the outlines of the shapes of area 1 at the origin."""
    wide = x.abs()
    high = y.abs()
    circle = (x * x + y * y).sqrt() - 0.5642  # 1 / √π
    square = torch.maximum(wide, high) - 0.5
    triangle = torch.maximum(y, wide * 0.8660 - y * 0.5) - 0.4387  # equilateral: 1 / √(3√3)
    along = 0.6708  # a cross is two bars, three times as long as wide: half-length 3 / √20 ...
    thin = 0.2236  # ... and half-width 1 / √20
    lying = torch.maximum(wide - along, high - thin)
    standing = torch.maximum(wide - thin, high - along)
    return [circle, square, triangle, torch.minimum(lying, standing)]


def paint(images: Tensor, alpha: Tensor, colours: Tensor) -> Tensor:
    """`images` `[N, 3, H, W]` with `colours` `[N, 3]` over them where `alpha` `[N, H, W]` says."""
    alpha = alpha.unsqueeze(1)
    return images * (1 - alpha) + colours[:, :, None, None] * alpha


def blank(count: int, pixels: int = PIXELS) -> Tensor:
    """Empty images `[count, 3, pixels, pixels]`."""
    ground = torch.tensor(BACKGROUND).reshape(1, 3, 1, 1)
    return ground.expand(count, 3, pixels, pixels).clone()


def from_ground(images: Tensor) -> Tensor:
    """How far each pixel of `[M, 3, H, W]` is from the ground, in each channel."""
    return images - torch.tensor(BACKGROUND).to(images).reshape(1, 3, 1, 1)


def within(bounds: tuple[float, float], place: Tensor) -> Tensor:
    """Between the bounds, for places in [-1, 1]."""
    return (bounds[0] + bounds[1]) / 2 + place * (bounds[1] - bounds[0]) / 2
