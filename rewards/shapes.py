"""The reward of captioned shapes: does the picture show that colour, that shape, at that place?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.reward.contract import Reward
from treerl.toy.shapes import BACKGROUND, COLOURS, PLACES, SHAPES, SIZES, Caption, coverage

# Contrasts (1 = as far from the background as the object is) below the first count as background, above the second as
# object. The band lies round 0.5, so that an anti-aliased edge keeps its area; it makes the judge blind to faint marks.
FAINT, FULL = 0.25, 0.75
NEAR_COLOUR, NEAR_PLACE = 0.22, 0.13  # beyond these distances a picture shows no colour, no place
GOOD_FIT = 0.74  # overlap with the ideal outline below which a picture shows no shape


@dataclass(frozen=True)
class Seen:
    """What the judge makes of `N` pictures."""

    mask: Tensor  # [N, H, W] how much of each pixel belongs to the object
    colours: Tensor  # [N, len(COLOURS)] distance to each colour
    fits: Tensor  # [N, len(SHAPES)] overlap (IoU) with each shape of the same centroid and area
    centre: Tensor  # [N, 2] centroid of the object
    sized: Tensor  # [N] whether the area is that of an object


class Shapes(Reward):
    """In [0, 1]: the product of how well colour, shape and place match the caption."""

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`: near 1 for what the caption says drawn cleanly, near 0 for one wrong attribute or no object."""
        images = samples.images
        seen, asked = look(images), _asked(samples.prompts, images.device)
        places = _apart(seen.centre, list(PLACES.values()))
        place = _share(-places.square() / 0.004, asked[2]) * _fade(places, asked[2], 0.045, 0.18)
        return (
            colour_score(seen, asked[0]) * place * shape_score(seen, asked[1]) * seen.sized
        ).float()

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            Caption.parse(task.prompt)

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        """Hard decisions, and how uneven the background is (which the score leaves out on purpose)."""
        images = samples.images
        seen, asked = look(images), _asked(samples.prompts, images.device)
        places = _apart(seen.centre, list(PLACES.values()))
        colour, shape = is_colour(seen, asked[0]), is_shape(seen, asked[1])
        place = (places.argmin(1) == asked[2]) & (places.amin(1) < NEAR_PLACE) & seen.sized
        hard = {"right": colour & shape & place, "colour": colour, "shape": shape, "place": place}
        figures = {name: value.float() for name, value in hard.items()}
        return figures | {"background": unevenness(images.double(), seen.mask).float()}


def look(images: Tensor) -> Seen:
    """Segment the object by its contrast to the known background and compare it with every alternative.

    Sums run in float64 within one picture at a time, so that a score does not depend on the rest of the batch.
    """
    images = images.double()
    ground = torch.tensor(BACKGROUND, dtype=images.dtype, device=images.device).reshape(1, 3, 1, 1)
    contrast = (images - ground).square().sum(1).sqrt()
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
    return Seen(
        mask=mask,
        colours=_apart(colour, list(COLOURS.values())),
        fits=both / either,
        centre=torch.stack([x, y], dim=1),
        sized=(size > 0.75 * SIZES[0]) & (size < 1.3 * SIZES[1]),
    )


def colour_score(seen: Seen, asked: Tensor) -> Tensor:
    """How well the colour is the one of index `asked` `[N]`, in [0, 1]."""
    return _share(-seen.colours.square() / 0.03, asked) * _fade(seen.colours, asked, 0.03, 0.35)


def shape_score(seen: Seen, asked: Tensor) -> Tensor:
    """How well the shape is the one of index `asked` `[N]`, in [0, 1]."""
    return _share(seen.fits / 0.03, asked) * (1 - _fade(seen.fits, asked, 0.60, 0.95))


def is_colour(seen: Seen, asked: Tensor) -> Tensor:
    """Whether an object is there, `[N]`, and its colour is nearest to the one of index `asked` and near to it."""
    return (seen.colours.argmin(1) == asked) & (seen.colours.amin(1) < NEAR_COLOUR) & seen.sized


def is_shape(seen: Seen, asked: Tensor) -> Tensor:
    """Whether an object is there, `[N]`, and its outline fits the shape of index `asked` best and well."""
    return (seen.fits.argmax(1) == asked) & (seen.fits.amax(1) > GOOD_FIT) & seen.sized


def _asked(prompts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The index `[N]` of the colour, the shape and the place that each prompt names."""
    captions = [Caption.parse(prompt) for prompt in prompts]
    colours, places = list(COLOURS), list(PLACES)
    rows = [
        [colours.index(caption.colour), SHAPES.index(caption.shape), places.index(caption.place)]
        for caption in captions
    ]
    colour, shape, place = torch.tensor(rows, device=device).reshape(-1, 3).unbind(1)
    return colour, shape, place


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over each picture, `[N, H, W]` to `[N]`; 0 where there is no weight."""
    total = weights.flatten(1).sum(1)
    return (values * weights).flatten(1).sum(1) / total.clamp(min=1e-9)


def _apart(points: Tensor, alternatives: Sequence[tuple[float, ...]]) -> Tensor:
    """Distances `[N, M]` of `points` `[N, D]` to `M` alternatives."""
    targets = torch.tensor(alternatives, dtype=points.dtype, device=points.device)
    return (points[:, None, :] - targets[None]).square().sum(2).sqrt()


def _share(logits: Tensor, asked: Tensor) -> Tensor:
    """The softmax probability `[N]` of the alternative asked for."""
    return logits.softmax(1).gather(1, asked[:, None]).squeeze(1)


def _fade(values: Tensor, asked: Tensor, full: float, none: float) -> Tensor:
    """1 up to `full`, falling to 0 at `none`, of the value `[N]` of the alternative asked for."""
    return ramp(values.gather(1, asked[:, None]).squeeze(1), full, none)


def ramp(value: Tensor, full: float, none: float) -> Tensor:
    """1 where `value` is on the far side of `full`, 0 on that of `none`, straight in between."""
    return ((none - value) / (none - full)).clamp(0, 1)


def unevenness(images: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation `[N]` of the colour over the pixels away from the object."""
    away = (
        torch.nn.functional.max_pool2d(mask.unsqueeze(1), 5, stride=1, padding=2).squeeze(1) == 0
    ).to(mask.dtype)
    channels = [images[:, channel] for channel in range(images.shape[1])]
    variance = [_mean((c - _mean(c, away)[:, None, None]).square(), away) for c in channels]
    return torch.stack(variance, dim=1).mean(1).sqrt()
