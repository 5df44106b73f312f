"""The reward of moving shapes: that colour and that shape, moving that way, and nothing else?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.reward.contract import Reward
from treerl.toy import judge
from treerl.toy.caption import indices
from treerl.toy.moving import DIRECTIONS, TRAVEL, MovingCaption

FAR = 0.5 * TRAVEL[0]  # a shape that goes less than this stands still
# root mean square distance from straight, even motion above which a path has no direction
UNSTEADY = 0.08
CLEAN = 0.06  # what may be unexplained; the tiny model's videos reach 0.03 to 0.06


@dataclass(frozen=True)
class Motion:
    """What the judge makes of the paths of `N` centroids."""

    along: Tensor  # [N, len(DIRECTIONS)] how far the centroid goes each way
    stray: Tensor  # [N] root mean square distance from the nearest straight, even motion


class MovingShapes(Reward):
    """In [0, 1]: how cleanly the frames show colour and shape, times how well they move."""

    modality = "videos"

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`: near 1 for what the caption says, near 0 for one wrong attribute."""
        return score(samples.images, parse(samples.prompts))

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        parse([task.prompt for task in tasks])

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        """Hard decisions, and how far the video is from a clean drawing."""
        return decide(samples.images, parse(samples.prompts))


def parse(prompts: Sequence[str]) -> list[MovingCaption]:
    """The captions; `InputError` for the first prompt that is none."""
    return [MovingCaption.parse(prompt) for prompt in prompts]


def score(videos: Tensor, captions: Sequence[MovingCaption]) -> Tensor:
    """How well each video `[N, F, 3, H, W]` shows its caption and nothing else, `[N]` in [0, 1]."""
    colour, shape, direction = indices(captions).to(videos.device).unbind(1)
    seen = judge.look(videos)
    motion = _motion(seen.centre)
    along = motion.along.gather(1, direction[:, None]).squeeze(1)
    total = motion.along.square().sum(1) / 2  # each axis is there twice, once with either sign
    aside = (total - along.square()).clamp(min=0).sqrt()
    moves = judge.ramp(along, 0.95 * TRAVEL[0], 0.0) * judge.ramp(aside, 0.05, 0.20)
    moves = moves * judge.ramp(motion.stray, 0.02, 0.10)
    return (judge.drawn(seen, colour, shape) * moves).float()


def decide(videos: Tensor, captions: Sequence[MovingCaption]) -> dict[str, Tensor]:
    """Yes (1) or no (0) for each demand, and how much of the video is unexplained, each `[N]`."""
    colour, shape, direction = indices(captions).to(videos.device).unbind(1)
    seen = judge.look(videos)
    motion = _motion(seen.centre)
    straight = (motion.along.amax(1) > FAR) & (motion.stray < UNSTEADY)
    decisions = {
        "colour": judge.is_colour(seen, colour),
        "shape": judge.is_shape(seen, shape),
        "direction": (motion.along.argmax(1) == direction) & straight & judge.is_there(seen),
        "clean": seen.unexplained < CLEAN,
    }
    right = torch.stack(list(decisions.values())).all(0)
    measures = {"right": right} | decisions | {"unexplained": seen.unexplained}
    return {name: value.float() for name, value in measures.items()}


def _motion(path: Tensor) -> Motion:
    """Least squares of a straight, even motion to each path `[N, F, 2]`."""
    frames = path.shape[1]
    moment = torch.linspace(-0.5, 0.5, frames, dtype=path.dtype, device=path.device)[None, :, None]
    path = path - path.mean(1, keepdim=True)
    travel = (moment * path).sum(1, keepdim=True) / moment.square().sum()
    stray = (path - moment * travel).square().sum(2).mean(1).sqrt()
    ways = torch.tensor(list(DIRECTIONS.values()), dtype=path.dtype, device=path.device)
    return Motion((travel * ways).sum(2), stray)
