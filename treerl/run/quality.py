"""Figures of images that no reward sees: when they move as the reward rises, it is being hacked."""

from collections.abc import Mapping

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
    return means(qualities(images, group))


def qualities(images: Tensor, group: Tensor) -> dict[str, Tensor]:
    """The same figures of every sample `[M]`, float64, a function of the sample alone.

    diversity is that of the sample's task; NaN where it has one sample.
    """
    if images.dim() not in (4, 5):
        return {}
    rows = [_figures(image) for image in torch.split(images, 1)]
    names = rows[0] if rows else ()
    columns = {name: torch.stack([row[name] for row in rows]).double() for name in names}
    if rows:
        columns["diversity"] = torch.full((len(rows),), torch.nan, dtype=torch.float64)
    for row in torch.unique(group).tolist():
        flat = images[group == row].flatten(1)
        if len(flat) > 1:
            distance = torch.pdist(flat).mean() / flat.shape[1] ** 0.5
            columns["diversity"][group == row] = distance.double()
    return columns


def means(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean of every figure over the samples that have it; none where no sample does."""
    known = {name: column[~column.isnan()] for name, column in columns.items()}
    return {name: float(column.mean()) for name, column in known.items() if len(column)}


def _figures(image: Tensor) -> dict[str, Tensor]:
    """Of one image `[1, 3, H, W]` or video `[1, F, 3, H, W]`."""
    down = _step(image, -2)
    across = _step(image, -1)
    figures = {
        "contrast": _contrast(image),
        "roughness": (down + across) / 2,
        "saturation": ((image <= 0.002) | (image >= 0.998)).float().mean(),
    }
    if image.dim() == 5:
        figures["motion"] = _step(image, 1)
    return figures


def _step(images: Tensor, dimension: int) -> Tensor:
    """Mean absolute difference of neighbours along a dimension; 0 where it has only one place."""
    if images.shape[dimension] < 2:
        return images.new_zeros(())
    return images.diff(dim=dimension).abs().mean()


def _contrast(images: Tensor) -> Tensor:
    pixels = images.flatten(-3)
    return pixels.std(-1).mean() if pixels.shape[-1] > 1 else images.new_zeros(())
