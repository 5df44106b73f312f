"""The reward of moving shapes: does the video show that colour and that shape, moving that way?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.reward.contract import Reward
from treerl.toy import judge
from treerl.toy.caption import indices
from treerl.toy.judge import Seen
from treerl.toy.moving import DIRECTIONS, TRAVEL, MovingCaption

FAR = 0.5 * TRAVEL[0]  # a shape that goes less than this stands still
# root mean square distance from straight, even motion above which a path has no direction
UNSTEADY = 0.08
MOST = 0.75  # share of the frames that must show what was asked for


@dataclass(frozen=True)
class Motion:
    """What the judge makes of the paths of `N` centroids."""

    along: Tensor  # [N, len(DIRECTIONS)] how far the centroid goes each way
    stray: Tensor  # [N] root mean square distance from the nearest straight, even motion


class MovingShapes(Reward):
    """In [0, 1]: how well the frames show colour and shape, times how well the path matches."""

    modality = "videos"

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`: near 1 for what the caption says, near 0 for one wrong attribute."""
        return score(samples.images, parse(samples.prompts))

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        parse([task.prompt for task in tasks])

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        """Hard decisions, and how uneven the background is."""
        return decide(samples.images, parse(samples.prompts))


def parse(prompts: Sequence[str]) -> list[MovingCaption]:
    """The captions; `InputError` for the first prompt that is none."""
    return [MovingCaption.parse(prompt) for prompt in prompts]


def score(videos: Tensor, captions: Sequence[MovingCaption]) -> Tensor:
    """How well each video `[N, F, 3, H, W]` shows its caption, `[N]` in [0, 1]."""
    frames = videos.shape[1]
    colour, shape, direction = indices(captions).to(videos.device).unbind(1)
    seen = _look(videos.flatten(0, 1))
    drawn = judge.colour_score(seen, colour.repeat_interleave(frames))
    drawn = drawn * judge.shape_score(seen, shape.repeat_interleave(frames)) * seen.sized
    motion = _motion(seen.centre.reshape(-1, frames, 2))
    along = judge.pick(motion.along, direction)
    total = motion.along.square().sum(1) / 2  # each axis is there twice, once with either sign
    aside = (total - along.square()).clamp(min=0).sqrt()
    moves = judge.ramp(along, 0.95 * TRAVEL[0], 0.0) * judge.ramp(aside, 0.05, 0.20)
    moves = moves * judge.ramp(motion.stray, 0.02, 0.10)
    return (_over_frames(drawn, frames) * moves).float()


def decide(videos: Tensor, captions: Sequence[MovingCaption]) -> dict[str, Tensor]:
    """Yes (1) or no (0) for each attribute, and how uneven the background is, each `[N]`."""
    frames = videos.shape[1]
    colour, shape, direction = indices(captions).to(videos.device).unbind(1)
    seen = _look(videos.flatten(0, 1))
    is_colour = judge.is_colour(seen, colour.repeat_interleave(frames))
    is_shape = judge.is_shape(seen, shape.repeat_interleave(frames))
    coloured = _over_frames(is_colour.double(), frames) >= MOST
    shaped = _over_frames(is_shape.double(), frames) >= MOST
    there = _over_frames(seen.sized.double(), frames) >= MOST
    motion = _motion(seen.centre.reshape(-1, frames, 2))
    straight = (motion.along.amax(1) > FAR) & (motion.stray < UNSTEADY)
    moves = (motion.along.argmax(1) == direction) & straight & there
    uneven = judge.unevenness(videos.flatten(0, 1).double(), seen.mask)
    return {
        "right": (coloured & shaped & moves).float(),
        "colour": coloured.float(),
        "shape": shaped.float(),
        "direction": moves.float(),
        "background": _over_frames(uneven, frames).float(),
    }


def _look(frames: Tensor) -> Seen:
    """What `look` makes of frames, in parts that fit a processor's cache: four times faster."""
    parts = [vars(judge.look(part)) for part in torch.split(frames, 256)]
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


def _over_frames(values: Tensor, frames: int) -> Tensor:
    """Mean `[N]` over the `frames` of each video of `[N · F]` values."""
    return values.reshape(-1, frames).mean(1)
