"""How many bytes of tensors are alive at a time, counted by watching every operation of torch."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_MASKED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make while it is active; those before it do not count.

    It works on tensors of any device, on real ones and on fakes. What a kernel needs for itself
    while it runs is not seen. Where fakes are counted, `stand_in` makes one of a matrix that a
    network fills by itself, as with zeros: real memory would be spent on it.

        with LiveBytes() as live:
            network(x).sum().backward()
        live.peak  # bytes
    """

    def __init__(self, stand_in: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stand_in = stand_in
        self.now = 0  # bytes
        self.peak = 0
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}  # by address: storage and bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MASKED:
            args = (args[0], _without_masks(args[1]), *args[2:])
        result = func(*args, **kwargs)
        given = {_address(tensor) for tensor in _tensors((args, kwargs))}
        if self.stand_in is not None and not given and _is_matrix(result):
            result = self.stand_in(result)
        for tensor in _tensors(result):
            if _address(tensor) not in given:  # a view of what was there, or a change in place
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address in self._alive:
            return
        size = storage.nbytes()
        self._alive[address] = (weakref.ref(storage, lambda _: self._forget(address)), size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _forget(self, address: int) -> None:
        _, size = self._alive.pop(address)
        self.now -= size


def _is_matrix(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _address(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _without_masks(indices: Any) -> list[Any]:
    """Real masks as the places where they hold: what a fake picks then has a known shape."""
    places: list[Any] = []
    for index in indices:
        real = isinstance(index, Tensor) and not isinstance(index, FakeTensor)
        if real and index.dtype == torch.bool:
            places += index.nonzero(as_tuple=True)
        else:
            places.append(index)
    return places
