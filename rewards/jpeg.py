"""The reward of small files: how well an image compresses; it needs no weights, no prompts."""

import io

import torch
from PIL import Image
from torch import Tensor

from treerl.engine.task import Samples
from treerl.reward.contract import Reward

QUALITY = 95


class Jpeg(Reward):
    """Minus the kilobytes of an image as JPEG of quality 95 (DDPO, arXiv 2305.13301).

    Weight -1 asks for detail.
    """

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`, all below 0."""
        pixels = (samples.images.clamp(0, 1) * 255).round().to("cpu", torch.uint8)
        rows = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        return torch.tensor([-_kilobytes(Image.fromarray(row)) for row in rows])


def _kilobytes(image: Image.Image) -> float:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return len(buffer.getvalue()) / 1000
