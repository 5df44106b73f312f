"""The LAION aesthetic score: what people rate an image, from its CLIP embedding alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from transformers import CLIPModel

from . import _contrast  # noqa: TID251
from ._learned import Learned  # noqa: TID251

REPOSITORY = "trl-lib/ddpo-aesthetic-predictor"
FILE = "aesthetic-model.pth"  # sac+logos+ava1-l14-linearMSE
TOWER = "openai/clip-vit-large-patch14"


@dataclass
class Aesthetic(Learned):
    """About 1 to 10; no look at the prompt.

    `model` is the head's file, `tower` the CLIP ViT-L/14 that it sits on.
    """

    title: ClassVar[str] = "aesthetic"
    tower: str = TOWER

    def read(self) -> None:
        state = self.weights(REPOSITORY, FILE)
        rater = self.filled(lambda: Rater(width_of(state)), state)
        self.layers = self.placed(rater).layers.float()  # small, and trained in float32
        self.towers = self.placed(self.pretrained(CLIPModel, self.tower, "tower"))

    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        rated: Tensor = self.layers(_contrast.embedded(self.towers, images)).squeeze(-1)
        return rated


class Rater(nn.Module):
    """The perceptron of the published predictor and of ImageReward.

    It has no activations, and dropout only in its training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )


def width_of(state: dict[str, Tensor]) -> int:
    """The width of the embedding that a perceptron of these tensors takes; 768 as published."""
    first = state.get("layers.0.weight")
    return first.shape[1] if first is not None and first.dim() == 2 else 768
