"""What a judge sees in images of the toy worlds: an object, its colour, its shape and its place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.toy.drawing import BACKGROUND, COLOURS, SIZES, coverage

# Contrasts (1 = as far from the background as the object is) below the first count as background,
# above the second as object. The band lies round 0.5, so that an anti-aliased edge keeps its area.
FAINT = 0.25
FULL = 0.75
NEAR_COLOUR = 0.22  # beyond this distance an image shows no colour
GOOD_FIT = 0.74  # overlap with the ideal outline below which an image shows no shape


@dataclass(frozen=True)
class Seen:
    """What the judge makes of `N` images."""

    mask: Tensor  # [N, H, W] how much of each pixel belongs to the object
    colours: Tensor  # [N, len(COLOURS)] distance to each colour
    fits: Tensor  # [N, len(SHAPES)] overlap (IoU) with each shape of the same centroid and area
    centre: Tensor  # [N, 2] centroid of the object
    sized: Tensor  # [N] whether the area is that of an object


def look(images: Tensor) -> Seen:
    """Segment the object by its contrast to the known background, compare it with every shape.

    Sums run in float64 within one image, so that a score does not depend on the rest of the batch.
    """
    images = images.double()
    ground = torch.tensor(BACKGROUND, dtype=images.dtype, device=images.device).reshape(1, 3, 1, 1)
    contrast = (images - ground).square().sum(1).sqrt()
    object_contrast = mean(contrast, contrast**4)
    relative = contrast / object_contrast.clamp(min=0.25)[:, None, None]
    mask = ((relative - FAINT) / (FULL - FAINT)).clamp(0, 1)
    pixels = images.shape[-1]
    ticks = (torch.arange(pixels, dtype=images.dtype, device=images.device) + 0.5) / pixels
    x = mean(ticks.expand_as(mask), mask)
    y = mean(ticks[:, None].expand_as(mask), mask)
    size = mask.flatten(1).mean(1).sqrt()
    outlines = coverage(x, y, size.clamp(min=0.5 / pixels), pixels)
    both = torch.minimum(outlines, mask.unsqueeze(1)).flatten(2).sum(2)
    either = torch.maximum(outlines, mask.unsqueeze(1)).flatten(2).sum(2)
    colour = torch.stack([mean(images[:, channel], mask**4) for channel in range(3)], dim=1)
    return Seen(
        mask=mask,
        colours=distances(colour, list(COLOURS.values())),
        fits=both / either,
        centre=torch.stack([x, y], dim=1),
        sized=(size > 0.75 * SIZES[0]) & (size < 1.3 * SIZES[1]),
    )


def colour_score(seen: Seen, index: Tensor) -> Tensor:
    """How well the colour is the one of `index` `[N]`, in [0, 1]."""
    nearest = share(-seen.colours.square() / 0.03, index)
    return nearest * ramp(pick(seen.colours, index), 0.03, 0.35)


def shape_score(seen: Seen, index: Tensor) -> Tensor:
    """How well the shape is the one of `index` `[N]`, in [0, 1]."""
    return share(seen.fits / 0.03, index) * ramp(pick(seen.fits, index), 0.95, 0.60)


def is_colour(seen: Seen, index: Tensor) -> Tensor:
    """Whether an object is there, `[N]`, and its colour is near to that of `index`, and nearest."""
    return (seen.colours.argmin(1) == index) & (seen.colours.amin(1) < NEAR_COLOUR) & seen.sized


def is_shape(seen: Seen, index: Tensor) -> Tensor:
    """Whether an object is there `[N]` and its outline fits the shape of `index` best, and well."""
    return (seen.fits.argmax(1) == index) & (seen.fits.amax(1) > GOOD_FIT) & seen.sized


def unevenness(images: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation `[N]` of the colour over the pixels away from the object."""
    near = torch.nn.functional.max_pool2d(mask.unsqueeze(1), 5, stride=1, padding=2).squeeze(1)
    away = (near == 0).to(mask.dtype)
    channels = [images[:, channel] for channel in range(images.shape[1])]
    variance = [mean((c - mean(c, away)[:, None, None]).square(), away) for c in channels]
    return torch.stack(variance, dim=1).mean(1).sqrt()


def mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over each image, `[N, H, W]` to `[N]`; 0 where there is no weight."""
    total = weights.flatten(1).sum(1)
    return (values * weights).flatten(1).sum(1) / total.clamp(min=1e-9)


def distances(points: Tensor, alternatives: Sequence[tuple[float, ...]]) -> Tensor:
    """Distances `[N, M]` of `points` `[N, D]` to `M` alternatives."""
    targets = torch.tensor(alternatives, dtype=points.dtype, device=points.device)
    return (points[:, None, :] - targets[None]).square().sum(2).sqrt()


def pick(values: Tensor, index: Tensor) -> Tensor:
    """The value `[N]` of the alternative `index` `[N]` of `[N, M]`."""
    return values.gather(1, index[:, None]).squeeze(1)


def share(logits: Tensor, index: Tensor) -> Tensor:
    """The softmax probability `[N]` of the alternative `index`."""
    return pick(logits.softmax(1), index)


def ramp(value: Tensor, full: float, none: float) -> Tensor:
    """1 on the far side of `full`, 0 on that of `none`, straight in between."""
    return ((none - value) / (none - full)).clamp(0, 1)
