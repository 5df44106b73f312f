"""Images that show what their caption says, and something else beside it: a judge must not pass.

Every function takes images `[N, 3, H, W]` in [0, 1] of one object each and spoils all of them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from treerl.toy.drawing import BACKGROUND, COLOURS, coverage, paint

GROUND = torch.tensor(BACKGROUND).reshape(1, 3, 1, 1)
Spoil = Callable[[Tensor], Tensor]


def alpha(images: Tensor) -> Tensor:
    """How much of each pixel the object covers, `[N, H, W]`."""
    contrast = (images - GROUND).square().sum(1).sqrt()
    return contrast / contrast.amax((1, 2), keepdim=True)


def colour(images: Tensor) -> Tensor:
    """The object's colour, `[N, 3]`."""
    place = alpha(images).flatten(1).argmax(1)
    return images.flatten(2)[torch.arange(len(images)), :, place]


def other(images: Tensor) -> Tensor:
    """For each image the next colour but one of the world after the object's, `[N, 3]`."""
    palette = torch.tensor(list(COLOURS.values()))
    index = (palette[None] - colour(images)[:, None]).square().sum(2).argmin(1)
    return palette[(index + 2) % len(palette)]


def eroded(images: Tensor, reach: int) -> Tensor:
    """The inside of the object, `[N, H, W]`: `reach` pixels less on every side."""
    return -F.max_pool2d(-alpha(images), 2 * reach + 1, 1, reach)


def centre(images: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row `[N]` of the object's centroid, in pixels."""
    weight = alpha(images)
    ticks = torch.arange(images.shape[-1]) + 0.5
    total = weight.sum((1, 2))
    return (weight.sum(1) * ticks).sum(1) / total, (weight.sum(2) * ticks).sum(1) / total


def halves(images: Tensor, along: int) -> Tensor:
    """One half of the object in another colour; `along` 0 splits left from right, 1 top."""
    ticks = torch.arange(images.shape[-1]) + 0.5
    beyond = ticks[None, :] > centre(images)[along][:, None]
    half = beyond[:, None, :] if along == 0 else beyond[:, :, None]
    return paint(images, alpha(images) * half, other(images))


def gradient(images: Tensor) -> Tensor:
    """The object's colour fades into another one from left to right."""
    ticks = torch.arange(images.shape[-1]) + 0.5
    fade = ((ticks[None, :] - centre(images)[0][:, None]) / 10 + 0.5).clamp(0, 1)
    return paint(images, alpha(images) * fade[:, None, :], other(images))


def shaded(images: Tensor, pattern: Tensor) -> Tensor:
    """Two shades of one object, whose mean is its colour; `pattern` `[N, H, W]` in [-1, 1]."""
    shift = torch.tensor([0.2, -0.2, 0.2]).reshape(1, 3, 1, 1)
    return (images + shift * (alpha(images) * pattern).unsqueeze(1)).clamp(0, 1)


def slope(images: Tensor, steepness: float) -> Tensor:
    """From -1 left of the object's centre to 1 right of it, `[N, H, W]`."""
    ticks = torch.arange(images.shape[-1]) + 0.5
    fade = (steepness * (ticks[None, :] - centre(images)[0][:, None])).clamp(-1, 1)
    return fade[:, None, :].expand_as(images[:, 0])


def rings(images: Tensor) -> Tensor:
    """1 inside the object, -1 at its edge, `[N, H, W]`."""
    return 2 * eroded(images, 1) - 1


def core(images: Tensor) -> Tensor:
    """The inside of the object in another colour."""
    return paint(images, eroded(images, 1), other(images))


def border(images: Tensor) -> Tensor:
    """The outline of the object in another colour."""
    return paint(images, alpha(images) - eroded(images, 1), other(images))


def hole(images: Tensor) -> Tensor:
    """Three by three pixels of ground in the middle of the object."""
    column, row = centre(images)
    ticks = torch.arange(images.shape[-1]) + 0.5
    across = (ticks[None, :] - column[:, None]).abs() < 1.5
    down = (ticks[None, :] - row[:, None]).abs() < 1.5
    inside = (across[:, None, :] & down[:, :, None]).float()
    return paint(images, inside, GROUND.reshape(1, 3).expand(len(images), 3))


def outline(images: Tensor) -> Tensor:
    """The object's outline alone."""
    return paint(images, eroded(images, 1), GROUND.reshape(1, 3).expand(len(images), 3))


def second(
    images: Tensor, contrast: float, size: float, shape: int = 0, where: str = "corner"
) -> Tensor:
    """A second object of another colour, more or less faint, far from the first one.

    `where` is the far "corner", or "beside", "above" or below the object.
    """
    column, row = centre(images)
    x = torch.where(column > 16, 0.19, 0.81)
    y = torch.where(row > 16, 0.19, 0.81)
    if where == "beside":
        y = row / images.shape[-1]
    if where == "above":
        x = column / images.shape[-1]
    mark = coverage(x, y, torch.full_like(x, size))[:, shape]
    return paint(images, contrast * mark, other(images))


def patterned(images: Tensor, pattern: Tensor) -> Tensor:
    """The ground darker by `pattern` `[H, W]`, which leaves the object alone."""
    return images - pattern * (1 - alpha(images)).unsqueeze(1)


def stripes(images: Tensor, depth: float, period: int, along: int) -> Tensor:
    """Stripes over the ground, each half a period wide."""
    line = (torch.arange(images.shape[-1]) % period < period / 2).float() * depth
    return patterned(images, line[None, :] if along == 0 else line[:, None])


def checker(images: Tensor, depth: float) -> Tensor:
    """A checkerboard of four by four pixels over the ground."""
    field = torch.arange(images.shape[-1]) // 4
    return patterned(images, (field[None, :] + field[:, None]) % 2 * depth)


def noise(images: Tensor, depth: float) -> Tensor:
    """Noise on every pixel, of that standard deviation."""
    grains = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    return (images + depth * grains).clamp(0, 1)


def vignette(images: Tensor, depth: float) -> Tensor:
    """Corners darker by `depth`."""
    ticks = torch.linspace(-1, 1, images.shape[-1])
    return patterned(images, depth * (ticks[None, :] ** 2 + ticks[:, None] ** 2) / 2)


def tint(images: Tensor, depth: float) -> Tensor:
    """A ground of another colour: less blue."""
    away = (1 - alpha(images)) * depth
    return torch.cat([images[:, :2], images[:, 2:] - away[:, None]], dim=1)


def dots(images: Tensor, depth: float, side: int) -> Tensor:
    """A dark dot in every corner."""
    spoilt = images.clone()
    for rows in (slice(0, side), slice(-side, None)):
        for columns in (slice(0, side), slice(-side, None)):
            spoilt[:, :, rows, columns] -= depth
    return spoilt


def copies(images: Tensor) -> Tensor:
    """Four copies of the object at half its size, about its centroid."""
    quarter = F.avg_pool2d(images, 2)
    return torch.cat([torch.cat([quarter, quarter], 3), torch.cat([quarter, quarter], 3)], 2)


def filled(images: Tensor) -> Tensor:
    """The object's colour everywhere."""
    return colour(images)[:, :, None, None].expand_as(images).clone()


FOOLING: dict[str, Spoil] = {
    "halves side by side": lambda images: halves(images, 0),
    "halves one above the other": lambda images: halves(images, 1),
    "a gradient of colours": gradient,
    "two shades side by side": lambda images: shaded(images, slope(images, 9)),
    "one shade running into another": lambda images: shaded(images, slope(images, 0.35)),
    "a ring of another shade": lambda images: shaded(images, rings(images)),
    "a core of another colour": core,
    "a border of another colour": border,
    "a hole": hole,
    "an outline alone": outline,
    "a second object": lambda images: second(images, 1.0, 0.3),
    "a second object of half the contrast": lambda images: second(images, 0.5, 0.3, 1),
    "a second object of a quarter of the contrast": lambda images: second(images, 0.25, 0.3),
    "a small second object": lambda images: second(images, 1.0, 0.12, 1),
    "a small and faint second object": lambda images: second(images, 0.5, 0.16, 3),
    "narrow stripes": lambda images: stripes(images, 0.06, 2, 0),
    "lying stripes": lambda images: stripes(images, 0.06, 4, 1),
    "wide stripes": lambda images: stripes(images, 0.06, 16, 0),
    "a checkerboard": lambda images: checker(images, 0.06),
    "noise": lambda images: noise(images, 0.05),
    "a vignette": lambda images: vignette(images, 0.2),
    "a tinted ground": lambda images: tint(images, 0.15),
    "dots in the corners": lambda images: dots(images, 0.5, 2),
    "small dots in the corners": lambda images: dots(images, 0.9, 1),
    "four small copies": copies,
    "the colour everywhere": filled,
}
