"""What a judge sees in images and videos of the toy worlds: an object, and all that is beside it.

An image is a video of one frame: `N` samples of `F` frames each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.toy.clean import unexplained
from treerl.toy.drawing import COLOURS, SIZES, coverage, from_ground

# Contrasts (1 = as far from the background as the object is) below the first count as background,
# above the second as object. The band lies round 0.5, so that an anti-aliased edge keeps its area.
FAINT = 0.25
FULL = 0.75
NEAR_COLOUR = 0.22  # beyond this distance an image shows no colour
GOOD_FIT = 0.74  # overlap with the ideal outline below which an image shows no shape
SLACK = 0.05  # how much better another shape may fit a single frame of a video


@dataclass(frozen=True)
class Seen:
    """What the judge makes of `N` samples of `F` frames."""

    colours: Tensor  # [N, F, len(COLOURS)] distance to each colour
    fits: Tensor  # [N, F, len(SHAPES)] overlap (IoU) with each shape of the same centroid and area
    centre: Tensor  # [N, F, 2] centroid of the object
    sized: Tensor  # [N, F] in [0, 1], whether the area is that of an object, and of the video's
    unexplained: Tensor  # [N] distance from the nearest clean drawing, see `clean.py`


def look(samples: Tensor) -> Seen:
    """What is seen in images `[N, 3, H, W]` or videos `[N, F, 3, H, W]`.

    Sums run in float64 within one image, so that a score does not depend on the rest of the batch.
    """
    videos = samples.unsqueeze(1) if samples.ndim == 4 else samples
    rows = max(1, 256 // videos.shape[1])  # what fits a processor's cache: four times faster
    parts = [vars(_look(part.double())) for part in torch.split(videos, rows)]
    return Seen(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _look(videos: Tensor) -> Seen:
    """Segment the object by its contrast to the known ground, compare it with every shape."""
    count, frames = videos.shape[:2]
    images = videos.flatten(0, 1)
    contrast = from_ground(images).square().sum(1).sqrt()
    object_contrast = _mean(contrast, contrast**4)
    relative = contrast / object_contrast.clamp(min=0.25)[:, None, None]
    mask = ((relative - FAINT) / (FULL - FAINT)).clamp(0, 1)
    pixels = images.shape[-1]
    ticks = (torch.arange(pixels, dtype=images.dtype, device=images.device) + 0.5) / pixels
    x = _mean(ticks.expand_as(mask), mask)
    y = _mean(ticks[:, None].expand_as(mask), mask)
    size = mask.flatten(1).mean(1).sqrt()
    outlines = coverage(x, y, size.clamp(min=0.5 / pixels), pixels)
    both = torch.minimum(outlines, mask.unsqueeze(1)).flatten(2).sum(2)
    either = torch.maximum(outlines, mask.unsqueeze(1)).flatten(2).sum(2)
    colour = torch.stack([_mean(images[:, channel], mask**4) for channel in range(3)], dim=1)
    centre = torch.stack([x, y], dim=1).reshape(count, frames, 2)
    colour = colour.reshape(count, frames, 3)
    size = size.reshape(count, frames)
    usual = size.median(1, keepdim=True).values  # an odd frame costs itself, not the others
    steady = ramp((size / usual.clamp(min=0.5 / pixels) - 1).abs(), 0.08, 0.16)
    return Seen(
        colours=distances(colour, list(COLOURS.values())),
        fits=(both / either).reshape(count, frames, -1),
        centre=centre,
        sized=steady * (size > 0.75 * SIZES[0]) * (size < 1.3 * SIZES[1]),
        unexplained=unexplained(videos, colour.median(1).values, usual.squeeze(1), centre),
    )


def drawn(seen: Seen, colour: Tensor, shape: Tensor) -> Tensor:
    """How cleanly that colour and that shape (indices `[N]`) are drawn, `[N]` in [0, 1]."""
    near = pick(seen.colours, colour)
    coloured = share(-seen.colours.square() / 0.03, colour) * ramp(near, 0.03, 0.35)
    fit = pick(seen.fits, shape)
    shaped = share(seen.fits / 0.03, shape) * ramp(fit, 0.95, 0.60)
    return (coloured * shaped * seen.sized).mean(1) * ramp(seen.unexplained, 0.035, 0.10)


def is_there(seen: Seen) -> Tensor:
    """Whether every frame shows something of the size of an object, `[N]`."""
    return (seen.sized > 0.5).all(1)


def is_colour(seen: Seen, index: Tensor) -> Tensor:
    """Whether an object is there `[N]` and its colour is nearest to `index`, and near."""
    colours = seen.colours.mean(1)
    return (colours.argmin(1) == index) & (colours.amin(1) < NEAR_COLOUR) & is_there(seen)


def is_shape(seen: Seen, index: Tensor) -> Tensor:
    """Whether an object is there `[N]` and shape `index` fits it best, and in no frame ill."""
    fits = seen.fits.mean(1)
    always = (pick(seen.fits, index) > seen.fits.amax(2) - SLACK).all(1)
    return (fits.argmax(1) == index) & (fits.amax(1) > GOOD_FIT) & always & is_there(seen)


def distances(points: Tensor, alternatives: Sequence[tuple[float, ...]]) -> Tensor:
    """Distances `[..., M]` of `points` `[..., D]` to `M` alternatives."""
    targets = torch.tensor(alternatives, dtype=points.dtype, device=points.device)
    return (points.unsqueeze(-2) - targets).square().sum(-1).sqrt()


def ramp(value: Tensor, full: float, none: float) -> Tensor:
    """1 on the far side of `full`, 0 on that of `none`, straight in between."""
    return ((none - value) / (none - full)).clamp(0, 1)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over each image, `[M, H, W]` to `[M]`; 0 where there is no weight."""
    total = weights.flatten(1).sum(1)
    return (values * weights).flatten(1).sum(1) / total.clamp(min=1e-9)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """The value `[N, F]` of the alternative `index` `[N]` of `[N, F, M]`."""
    return values[torch.arange(len(values), device=values.device), :, index]


def share(logits: Tensor, index: Tensor) -> Tensor:
    """The softmax probability `[N, F]` of the alternative `index`."""
    return pick(logits.softmax(2), index)
