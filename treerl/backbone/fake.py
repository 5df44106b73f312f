"""A model of fake tensors, which have a shape, a device and a graph but no memory."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from treerl.backbone.parts import PipelineParts

CPU = torch.device("cpu")


class Fakes:
    """Makes fakes of one kind, one for each tensor; real tensors may be mixed with them.

    They are on the CPU, whose attention is one operation that keeps its output and a number a row,
    as flash attention does on a GPU. Fakes of a GPU have no backward pass in a torch without it.
    """

    def __init__(self) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._made: dict[int, tuple[Tensor, Tensor]] = {}  # both, so that no address comes again

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A fake of a shape."""
        return FakeTensor(self._mode, torch.empty(*shape, dtype=dtype, device="meta"), CPU)

    def like(self, tensor: Tensor) -> Tensor:
        """A fake of the shape of another tensor."""
        return self.empty(*tensor.shape, dtype=tensor.dtype)

    def of(self, tensor: Tensor) -> Tensor:
        """The fake for a tensor of torch's meta device; tied weights stay tied."""
        if id(tensor) not in self._made:
            fake: Tensor = FakeTensor(self._mode, tensor.detach(), CPU)
            if isinstance(tensor, nn.Parameter):
                fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
            self._made[id(tensor)] = (tensor, fake)
        return self._made[id(tensor)][1]

    def fill(self, backbone: PipelineParts) -> None:
        """Exchange all that a model has on the meta device."""
        for network in backbone.modules.values():
            for part in network.modules():
                for held in (part._parameters, part._buffers, vars(part)):
                    self._exchange(held)
            # a fake cannot be moved, and is where it has to be
            vars(network)["_apply"] = _Stays(network)
        backbone.move(CPU)

    def _exchange(self, held: dict[str, Any]) -> None:
        for name, value in list(held.items()):
            if isinstance(value, Tensor) and value.is_meta:
                held[name] = self.of(value)


class _Stays:
    """What a network's `_apply` becomes, by which torch moves it and casts it."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, *_: Any, **__: Any) -> nn.Module:
        return self.network
