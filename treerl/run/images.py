"""Writes samples as image files: an image as PNG, a video as an animated PNG that browsers play."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

_FRAME = 120  # milliseconds
_REST = 6 * _FRAME  # the last frame stays, so that one sees where a video begins again


def are_images(samples: Tensor) -> bool:
    """Whether these are images `[N, 3, H, W]` or videos `[N, F, 3, H, W]`, which can be drawn."""
    return samples.dim() in (4, 5) and samples.shape[-3] == 3 and 0 not in samples.shape


def save(path: Path, image: Tensor) -> None:
    """One image `[3, H, W]` or video `[F, 3, H, W]` in [0, 1], rounded to 256 levels."""
    frames = image if image.dim() == 4 else image[None]
    levels = (frames.detach().float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    first, *others = [Image.fromarray(frame) for frame in pixels]
    if not others:
        first.save(path)
        return
    durations = [_FRAME] * len(others) + [_REST]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)
