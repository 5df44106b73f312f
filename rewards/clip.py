"""CLIPScore (arXiv 2104.08718): how alike CLIP finds an image and its prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from . import _contrast  # noqa: TID251
from ._learned import Learned  # noqa: TID251

PUBLISHED = "openai/clip-vit-large-patch14"


@dataclass
class Clip(Learned):
    """100 max(cosine, 0) of the image's and the prompt's embedding; `raw` is the cosine itself."""

    title: ClassVar[str] = "clip"
    raw: bool = False

    def read(self) -> None:
        source = self.model or PUBLISHED
        self.towers = self.placed(self.pretrained(CLIPModel, source, "model"))
        self.words = self.pretrained(CLIPTokenizer, source, "tokenizer")

    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        alike = _contrast.alike(self.towers, self.words, images, prompts)
        return alike if self.raw else 100 * alike.clamp(min=0)
