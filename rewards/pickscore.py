"""PickScore (arXiv 2305.01569): a CLIP ViT-H/14 tuned on which of two images people chose."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from . import _contrast  # noqa: TID251
from ._learned import Learned  # noqa: TID251

PUBLISHED = "yuvalkirstain/PickScore_v1"
WORDS = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"  # whose tokenizer it was tuned with


@dataclass
class PickScore(Learned):
    """The learned scale times the cosine of the embeddings, about 16 to 26.

    `scale` divides it (26 in Flow-GRPO).
    """

    title: ClassVar[str] = "pickscore"
    scale: float = 1.0
    tokenizer: str | None = None  # a folder or a hub id; null is the model's own, or the published

    def read(self) -> None:
        self.towers = self.placed(self.pretrained(CLIPModel, self.model or PUBLISHED, "model"))
        self.words = self.pretrained(
            CLIPTokenizer, self.tokenizer or self.model or WORDS, "tokenizer"
        )

    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        alike = _contrast.alike(self.towers, self.words, images, prompts)
        score: Tensor = self.towers.logit_scale.float().exp() * alike / self.scale
        return score
