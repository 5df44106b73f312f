"""Gradients of one optimizer step, summed over the processes that worked on it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from treerl.engine.parts import in_parts
from treerl.engine.peers import Peers

_BUCKET = 2**25  # numbers that travel at once: 128 MiB in float32


def sum_gradients(parameters: Sequence[Tensor], peers: Peers) -> None:
    """Replace every gradient by the sum over processes; weights of losses are those of all.

    A parameter without a gradient anywhere keeps none, so that its optimizer leaves it alone. The
    gradient of one that lies in parts came summed out of the backward pass.
    """
    parameters = [p for p in parameters if not in_parts(p)]
    if peers.size == 1 or not parameters:
        return
    touched = torch.tensor([float(p.grad is not None) for p in parameters])
    peers.total([touched])
    chosen = [p for p, used in zip(parameters, touched.tolist(), strict=True) if used]
    for bucket in _buckets(chosen):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        peers.total([flat])
        parts = torch.split(flat, [p.numel() for p in bucket])
        for parameter, part in zip(bucket, parts, strict=True):
            parameter.grad = part.view_as(parameter)


def _buckets(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """The parameters in their order, in lists of one dtype and device and of limited size."""
    buckets: list[list[Tensor]] = []
    kind = None
    filled = 0
    for parameter in parameters:
        here = (parameter.dtype, parameter.device)
        if here != kind or filled + parameter.numel() > _BUCKET:
            buckets.append([])
            filled = 0
        kind = here
        filled += parameter.numel()
        buckets[-1].append(parameter)
    return buckets
