"""Brings the images that a run shows to rank 0, from the processes that drew them."""

import torch
from torch import Tensor

from treerl.engine.peers import Peers
from treerl.engine.task import Samples
from treerl.run.images import are_images

SHOWN = 24  # held-out tasks whose images a run keeps


def bring(
    samples: Samples, rows: Tensor, shown: Tensor, every: Samples, peers: Peers
) -> tuple[Samples, Tensor]:
    """On rank 0 the own samples `[S]` and those of the `shown` rows, with the rows they are.

    `rows` `[S]` are those of `samples` among `every`, whose images nobody has. Elsewhere the own
    ones come back. Images travel in 256 levels, as files keep them, and one by one.
    """
    if peers.size == 1:
        return samples, rows
    images = []
    places = []
    for row in shown.tolist():
        ours = (rows == row).nonzero().flatten()
        package = {"images": _levels(samples.images[ours])} if len(ours) else {}
        for part in peers.gather(package):
            if "images" in part and peers.rank == 0 and not len(ours):
                images.append(_floats(part["images"]))
                places.append(row)
    if not images:
        return samples, rows
    own_images = [samples.images] if len(rows) else []
    rows = torch.cat([rows, torch.tensor(places)])
    tasks = tuple(every.tasks[row] for row in rows.tolist())
    return Samples(torch.cat([*own_images, *images]), tasks, every.group[rows]), rows


def _levels(images: Tensor) -> Tensor:
    if not are_images(images):
        return images
    return (images.float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)


def _floats(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images
