"""Tensors that lie in parts on several processes, and the whole ones that they stand for."""

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def in_parts(tensor: Tensor) -> bool:
    """Whether this process has but a part of the tensor."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """The tensor, whole in every process; all of them call it."""
    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor()
    return full


def whole_on_first(tensor: Tensor) -> Tensor:
    """The tensor; of one in parts the whole on the CPU of rank 0, and elsewhere nothing of it.

    All processes call it, for the same tensors in the same order.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    full = whole(tensor).detach()
    if tensor.device_mesh.get_rank() > 0:
        full = full[:0]
    return full.to("cpu", copy=True)  # so that nothing stays on the device


def part_of(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that lies in parts; the first dimension is what was cut."""
    assert isinstance(tensor, DTensor)
    return tensor.to_local()


def of_part(like: Tensor, part: Tensor) -> Tensor:
    """A tensor that lies in parts as `like` does, of this process's part."""
    assert isinstance(like, DTensor)
    return DTensor.from_local(
        part.to(like.device),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def part_like(like: Tensor, tensor: Tensor) -> Tensor:
    """The tensor; of a whole one this process's part, where `like` lies in parts."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    placed = tensor.to(like.device)
    # each process has the whole tensor: nothing travels
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)
