"""The reward of moving shapes: does the video show that colour and that shape, moving that way?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.reward.contract import Reward
from treerl.toy.moving import DIRECTIONS, TRAVEL, Caption
from treerl.toy.shapes import COLOURS, SHAPES

# relative: the one spelling of a neighbour on this shelf that type checkers follow too
from .shapes import Seen, colour_score, is_colour, is_shape, look, ramp, shape_score, unevenness  # noqa: TID251

FAR = 0.5 * TRAVEL[0]  # a shape that goes less than this stands still
UNSTEADY = (
    0.08  # root mean square distance from straight, even motion above which a path has no direction
)
MOST = 0.75  # share of the frames that must show what was asked for


@dataclass(frozen=True)
class Motion:
    """What the judge makes of the paths of `N` centroids."""

    along: Tensor  # [N, len(DIRECTIONS)] how far the centroid goes each way
    stray: (
        Tensor  # [N] root mean square distance from the straight, even motion nearest to its path
    )


class MovingShapes(Reward):
    """In [0, 1]: how well the frames match colour and shape, times how well the path matches the direction."""

    modality = "videos"

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]` of `[N, F, 3, H, W]`: near 1 for what the caption says, near 0 for one wrong attribute."""
        videos = samples.images
        seen, motion, (colour, shape, direction) = _judge(videos, samples.prompts)
        frames = colour_score(seen, colour) * shape_score(seen, shape) * seen.sized
        along, across = _components(motion, direction)
        moves = (
            ramp(along, 0.95 * TRAVEL[0], 0.0)
            * ramp(across, 0.05, 0.20)
            * ramp(motion.stray, 0.02, 0.10)
        )
        score: Tensor = _over_frames(frames, videos) * moves
        return score.float()

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            Caption.parse(task.prompt)

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        """Hard decisions, and how uneven the background is (which the score leaves out on purpose)."""
        videos = samples.images
        seen, motion, (colour, shape, direction) = _judge(videos, samples.prompts)
        coloured = _over_frames(is_colour(seen, colour).double(), videos) >= MOST
        shaped = _over_frames(is_shape(seen, shape).double(), videos) >= MOST
        straight = (motion.along.amax(1) > FAR) & (motion.stray < UNSTEADY)
        there = _over_frames(seen.sized.double(), videos) >= MOST
        moves = (motion.along.argmax(1) == direction) & straight & there
        hard = {
            "right": coloured & shaped & moves,
            "colour": coloured,
            "shape": shaped,
            "direction": moves,
        }
        figures = {name: value.float() for name, value in hard.items()}
        uneven = unevenness(videos.flatten(0, 1).double(), seen.mask)
        return figures | {"background": _over_frames(uneven, videos).float()}


def _judge(
    videos: Tensor, prompts: Sequence[str]
) -> tuple[Seen, Motion, tuple[Tensor, Tensor, Tensor]]:
    """The frames `[N · F]`, the paths `[N]`, and the colour and shape `[N · F]` and direction `[N]` asked for."""
    captions = [Caption.parse(prompt) for prompt in prompts]
    colours, ways = list(COLOURS), list(DIRECTIONS)
    rows = [
        [colours.index(caption.colour), SHAPES.index(caption.shape), ways.index(caption.direction)]
        for caption in captions
    ]
    colour, shape, direction = torch.tensor(rows, device=videos.device).reshape(-1, 3).unbind(1)
    seen, frames = _look(videos.flatten(0, 1)), videos.shape[1]
    asked = colour.repeat_interleave(frames), shape.repeat_interleave(frames), direction
    return seen, _motion(seen.centre.reshape(-1, frames, 2)), asked


def _look(frames: Tensor) -> Seen:
    """What `look` makes of many frames, in parts small enough for a processor's cache: four times faster."""
    parts = [vars(look(part)) for part in torch.split(frames, 256)]
    return Seen(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _motion(path: Tensor) -> Motion:
    """Least squares of a straight, even motion to each path `[N, F, 2]`."""
    frames = path.shape[1]
    moment = torch.linspace(-0.5, 0.5, frames, dtype=path.dtype, device=path.device)[None, :, None]
    path = path - path.mean(1, keepdim=True)
    travel = (moment * path).sum(1, keepdim=True) / moment.square().sum()
    stray = (path - moment * travel).square().sum(2).mean(1).sqrt()
    ways = torch.tensor(list(DIRECTIONS.values()), dtype=path.dtype, device=path.device)
    return Motion((travel * ways).sum(2), stray)


def _components(motion: Motion, direction: Tensor) -> tuple[Tensor, Tensor]:
    """How far `[N]` each path goes the way asked for, and how far aside."""
    along = motion.along.gather(1, direction[:, None]).squeeze(1)
    total = motion.along.square().sum(1) / 2  # each axis is there twice, once with either sign
    return along, (total - along.square()).clamp(min=0).sqrt()


def _over_frames(values: Tensor, videos: Tensor) -> Tensor:
    """Mean `[N]` over the frames of each video of `[N · F]` values."""
    return values.reshape(videos.shape[:2]).mean(1)
