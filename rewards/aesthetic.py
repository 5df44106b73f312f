"""The LAION aesthetic score: what people rate a picture, whatever its prompt, from its CLIP embedding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from transformers import CLIPModel

from . import _contrast  # noqa: TID251
from ._learned import Learned, fill  # noqa: TID251

REPOSITORY, FILE = (
    "trl-lib/ddpo-aesthetic-predictor",
    "aesthetic-model.pth",
)  # sac+logos+ava1-l14-linearMSE
TOWER = "openai/clip-vit-large-patch14"


@dataclass
class Aesthetic(Learned):
    """About 1 to 10; no look at the prompt. `model` is the head's file, `tower` the CLIP ViT-L/14 that it sits on."""

    title: ClassVar[str] = "aesthetic"
    tower: str = TOWER

    def read(self) -> None:
        state = self.weights(REPOSITORY, FILE)
        width = state["layers.0.weight"].shape[1] if "layers.0.weight" in state else 768
        network = nn.Module()
        network.layers = head(width)
        fill(network, state, f"reward {self.title}: its weights")
        self.layers = self.placed(network).layers.float()  # small, and trained in float32
        self.towers = self.placed(self.pretrained(CLIPModel, self.tower, "tower"))

    def rate(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        rated: Tensor = self.layers(_contrast.pictures(self.towers, pictures)).squeeze(-1)
        return rated


def head(width: int) -> nn.Sequential:
    """The perceptron of the published predictor and of ImageReward: no activations, dropout only in its training."""
    return nn.Sequential(
        nn.Linear(width, 1024),
        nn.Dropout(0.2),
        nn.Linear(1024, 128),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.Dropout(0.1),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )
