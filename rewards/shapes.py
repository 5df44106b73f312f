"""The reward of captioned shapes: does the image show that colour, that shape, at that place?"""

from collections.abc import Sequence

from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.reward.contract import Reward
from treerl.toy import judge
from treerl.toy.caption import indices
from treerl.toy.shapes import PLACES, ShapeCaption

NEAR_PLACE = 0.13  # beyond this distance an image shows no place


class Shapes(Reward):
    """In [0, 1]: the product of how well colour, shape and place match the caption."""

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`: near 1 for a clean drawing of the caption, near 0 for a wrong attribute."""
        return score(samples.images, parse(samples.prompts))

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        parse([task.prompt for task in tasks])

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        """Hard decisions, and how uneven the background is."""
        return decide(samples.images, parse(samples.prompts))


def parse(prompts: Sequence[str]) -> list[ShapeCaption]:
    """The captions; `InputError` for the first prompt that is none."""
    return [ShapeCaption.parse(prompt) for prompt in prompts]


def score(images: Tensor, captions: Sequence[ShapeCaption]) -> Tensor:
    """How well each image `[N, 3, H, W]` shows its caption, `[N]` in [0, 1]."""
    colour, shape, place = indices(captions).to(images.device).unbind(1)
    seen = judge.look(images)
    away = judge.distances(seen.centre, list(PLACES.values()))
    placed = judge.share(-away.square() / 0.004, place)
    placed = placed * judge.ramp(judge.pick(away, place), 0.045, 0.18)
    drawn = judge.colour_score(seen, colour) * placed * judge.shape_score(seen, shape)
    return (drawn * seen.sized).float()


def decide(images: Tensor, captions: Sequence[ShapeCaption]) -> dict[str, Tensor]:
    """Yes (1) or no (0) for each attribute, and how uneven the background is, each `[N]`."""
    colour, shape, place = indices(captions).to(images.device).unbind(1)
    seen = judge.look(images)
    away = judge.distances(seen.centre, list(PLACES.values()))
    coloured = judge.is_colour(seen, colour)
    shaped = judge.is_shape(seen, shape)
    placed = (away.argmin(1) == place) & (away.amin(1) < NEAR_PLACE) & seen.sized
    return {
        "right": (coloured & shaped & placed).float(),
        "colour": coloured.float(),
        "shape": shaped.float(),
        "place": placed.float(),
        "background": judge.unevenness(images.double(), seen.mask).float(),
    }
