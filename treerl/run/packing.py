"""Tensors by name as one buffer of bytes and back: JSON in front, raw numbers behind it."""

import json
from collections.abc import Mapping

import torch
from torch import Tensor

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    )
}
_LENGTH = 8  # bytes that say how long the JSON is


def pack(tensors: Mapping[str, Tensor]) -> Tensor:
    """One buffer `[B]` of bytes on the CPU."""
    header = []
    parts = []
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        header.append([name, dtype, list(tensor.shape)])
        parts.append(tensor.detach().cpu().contiguous().flatten().view(torch.uint8))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _LENGTH)
    front = len(text).to_bytes(_LENGTH, "little") + text
    return torch.cat([torch.frombuffer(bytearray(front), dtype=torch.uint8), *parts])


def unpack(buffer: Tensor) -> dict[str, Tensor]:
    """The tensors that were packed."""
    front = buffer[:_LENGTH].numpy().tobytes()
    place = _LENGTH + int.from_bytes(front, "little")
    tensors = {}
    for name, kind, shape in json.loads(buffer[_LENGTH:place].numpy().tobytes()):
        dtype = _DTYPES[kind]
        end = place + dtype.itemsize * torch.Size(shape).numel()
        # a copy of its own, as a view must start at a multiple of its item's size
        tensors[name] = buffer[place:end].clone().view(dtype).view(shape)
        place = end
    return tensors
