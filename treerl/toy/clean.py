"""How far a whole image or video is from a clean drawing of a single object on the ground."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from treerl.toy.drawing import coverage, from_ground

SOFT = 1.0  # pixels by which an outline may be blurred or out of place
LOCAL = 0.2  # weight of the worst window of 3 x 3 pixels beside the whole image


def unexplained(videos: Tensor, colour: Tensor, size: Tensor, centre: Tensor) -> Tensor:
    """How far `[N]` each video is from the nearest clean drawing, in its worst frame.

    A clean drawing is the ground and one shape of `colour` `[N, 3]` and `size` `[N]` at `centre`
    `[N, F, 2]`, every pixel ground + α (colour - ground), where α lies between the coverages of
    the shape drawn `SOFT` pixels smaller and larger. What is left is a distance in colour: its
    root mean square over all pixels, or `LOCAL` times that over the worst 3 x 3 of them if more.
    """
    count, frames = videos.shape[:2]
    offset = from_ground(videos.flatten(0, 1))
    way = from_ground(colour[:, :, None, None]).repeat_interleave(frames, dim=0)  # [N · F, 3, 1, 1]
    pixels = videos.shape[-1]
    x, y = centre.flatten(0, 1).unbind(1)
    size = size.clamp(min=0.5 / pixels).repeat_interleave(frames)
    least = coverage(x, y, size, pixels, -SOFT)
    most = coverage(x, y, size, pixels, SOFT)
    along = (offset * way).sum(1, keepdim=True)
    length = way.square().sum(1, keepdim=True).clamp(min=1e-6)
    alpha = (along / length).clamp(min=least, max=most)  # [N · F, len(SHAPES), H, W]
    # |offset - α way|², without a tensor of channels for each shape
    left = offset.square().sum(1, keepdim=True) + alpha * (alpha * length - 2 * along)
    left = left.clamp(min=0)
    whole = left.flatten(2).mean(2).sqrt()
    worst = avg_pool2d(left, 3, stride=1).flatten(2).amax(2).sqrt()
    each = torch.maximum(whole, LOCAL * worst).reshape(count, frames, -1)
    nearest: Tensor = each.amax(1).amin(1)
    return nearest
