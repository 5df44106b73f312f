"""The reward of small files: how well a picture compresses, which needs no weights and no prompts."""

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from treerl.reward.contract import Reward

QUALITY = 95


class Jpeg(Reward):
    """Minus the kilobytes of a picture as JPEG of quality 95 (DDPO, arXiv 2305.13301); weight -1 asks for detail."""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[N]`, all below 0."""
        pixels = (
            (images.clamp(0, 1) * 255)
            .round()
            .to("cpu", torch.uint8)
            .permute(0, 2, 3, 1)
            .contiguous()
        )
        return torch.tensor([-_kilobytes(Image.fromarray(one.numpy())) for one in pixels])


def _kilobytes(picture: Image.Image) -> float:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return len(buffer.getvalue()) / 1000
