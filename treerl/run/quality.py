"""Figures of pictures that no reward sees: when they move while the reward rises, the reward is being hacked."""

import torch
from torch import Tensor


def quality(images: Tensor, group: Tensor) -> dict[str, float]:
    """Means over pictures `[M, 3, H, W]` or videos `[M, F, 3, H, W]`; `group` `[M]` says which share a prompt.

    contrast: standard deviation of a picture's pixels. roughness: mean absolute difference of neighbouring pixels,
    which grids and speckle raise. saturation: share of values at 0 or 1. diversity: root mean square distance between
    two pictures of one prompt (left out where every prompt has only one). motion: mean absolute difference of
    consecutive frames, of videos.
    """
    figures = {
        "contrast": images.flatten(-3).std(-1).mean(),
        "roughness": (images.diff(dim=-2).abs().mean() + images.diff(dim=-1).abs().mean()) / 2,
        "saturation": ((images <= 0.002) | (images >= 0.998)).float().mean(),
    }
    if images.dim() == 5:
        figures["motion"] = (
            images.diff(dim=1).abs().mean() if images.shape[1] > 1 else images.new_zeros(())
        )
    sets = [images[group == one].flatten(1) for one in torch.unique(group).tolist()]
    distances = [torch.pdist(flat).mean() / flat.shape[1] ** 0.5 for flat in sets if len(flat) > 1]
    if distances:
        figures["diversity"] = torch.stack(distances).mean()
    return {name: float(value) for name, value in figures.items()}
