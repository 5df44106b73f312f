"""The reward of captioned shapes: that colour, that shape, at that place, and nothing else?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.reward.contract import Reward
from treerl.toy import judge
from treerl.toy.caption import indices
from treerl.toy.shapes import PLACES, ShapeCaption

NEAR_PLACE = 0.13  # beyond this distance an image shows no place
CLEAN = 0.05  # what may be unexplained; the tiny models' images reach 0.02 to 0.04


class Shapes(Reward):
    """In [0, 1]: how well colour, shape and place match, times how clean the image is."""

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`: near 1 for a clean drawing of the caption, near 0 for a wrong attribute."""
        return score(samples.images, parse(samples.prompts))

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        parse([task.prompt for task in tasks])

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        """Hard decisions, and how far the image is from a clean drawing."""
        return decide(samples.images, parse(samples.prompts))


def parse(prompts: Sequence[str]) -> list[ShapeCaption]:
    """The captions; `InputError` for the first prompt that is none."""
    return [ShapeCaption.parse(prompt) for prompt in prompts]


def score(images: Tensor, captions: Sequence[ShapeCaption]) -> Tensor:
    """How well each image `[N, 3, H, W]` shows its caption, and nothing else, `[N]` in [0, 1]."""
    colour, shape, place = indices(captions).to(images.device).unbind(1)
    seen = judge.look(images)
    away = judge.distances(seen.centre, list(PLACES.values()))  # [N, 1, len(PLACES)]
    placed = judge.share(-away.square() / 0.004, place)
    placed = placed * judge.ramp(judge.pick(away, place), 0.045, 0.18)
    return (judge.drawn(seen, colour, shape) * placed.squeeze(1)).float()


def decide(images: Tensor, captions: Sequence[ShapeCaption]) -> dict[str, Tensor]:
    """Yes (1) or no (0) for each demand, and how much of the image is unexplained, each `[N]`."""
    colour, shape, place = indices(captions).to(images.device).unbind(1)
    seen = judge.look(images)
    away = judge.distances(seen.centre, list(PLACES.values())).squeeze(1)
    decisions = {
        "colour": judge.is_colour(seen, colour),
        "shape": judge.is_shape(seen, shape),
        "place": (away.argmin(1) == place) & (away.amin(1) < NEAR_PLACE) & judge.is_there(seen),
        "clean": seen.unexplained < CLEAN,
    }
    right = torch.stack(list(decisions.values())).all(0)
    measures = {"right": right} | decisions | {"unexplained": seen.unexplained}
    return {name: value.float() for name, value in measures.items()}
