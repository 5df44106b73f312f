"""Figures of images that no reward sees: when they move as the reward rises, it is being hacked."""

import torch
from torch import Tensor


def quality(images: Tensor, group: Tensor) -> dict[str, float]:
    """Means over images `[M, 3, H, W]` or videos `[M, F, 3, H, W]`; none of other samples.

    `group` `[M]` says which samples share a task. contrast: standard deviation of the pixels.
    roughness: mean absolute difference of neighbouring pixels, which grids and speckle raise.
    saturation: share of values at 0 or 1. diversity: root mean square distance between two samples
    of one task (left out where every task has only one). motion: mean absolute difference of
    consecutive frames, of videos.
    """
    if images.dim() not in (4, 5):
        return {}
    down = _step(images, -2)
    across = _step(images, -1)
    figures = {
        "contrast": _contrast(images),
        "roughness": (down + across) / 2,
        "saturation": ((images <= 0.002) | (images >= 0.998)).float().mean(),
    }
    if images.dim() == 5:
        figures["motion"] = _step(images, 1)
    distances = []
    for row in torch.unique(group).tolist():
        flat = images[group == row].flatten(1)
        if len(flat) > 1:
            distances.append(torch.pdist(flat).mean() / flat.shape[1] ** 0.5)
    if distances:
        figures["diversity"] = torch.stack(distances).mean()
    return {name: float(value) for name, value in figures.items()}


def _step(images: Tensor, dimension: int) -> Tensor:
    """Mean absolute difference of neighbours along a dimension; 0 where it has only one place."""
    if images.shape[dimension] < 2:
        return images.new_zeros(())
    return images.diff(dim=dimension).abs().mean()


def _contrast(images: Tensor) -> Tensor:
    pixels = images.flatten(-3)
    return pixels.std(-1).mean() if pixels.shape[-1] > 1 else images.new_zeros(())
