"""Other weights than the policy's that a forward can be made with, by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from treerl.engine.algorithm import Algorithm
from treerl.engine.parts import part_like, whole_on_first
from treerl.engine.snapshot import named_parameters
from treerl.errors import InputError

# inside it the network, in place, has these weights
WeightSet = Callable[[], AbstractContextManager[Any]]


@contextmanager
def exchanged(parameters: Sequence[nn.Parameter], tensors: Sequence[Tensor]) -> Iterator[None]:
    """The parameters at the values of other tensors, which keep theirs meanwhile."""
    _exchange(parameters, tensors)
    try:
        yield
    finally:
        _exchange(parameters, tensors)


@dataclass(frozen=True)
class Average:
    """The exponential moving average of the weights, over iterations.

    After iteration i it keeps min(decay, (1 + i) / (10 + i)) of itself, so that the weights as
    training started do not linger.
    """

    parameters: Mapping[str, nn.Parameter]
    tensors: tuple[Tensor, ...]  # in the order of the parameters
    decay: float

    @classmethod
    def of(cls, algorithm: Algorithm, parameters: Mapping[str, nn.Parameter]) -> "Average | None":
        """The one that an algorithm keeps, beginning with the parameters as they are; or None."""
        if algorithm.ema == 0 and algorithm.rollout == "ema":
            raise InputError("rollout: expected ema above 0, as the average grows the trees")
        if algorithm.ema == 0:
            return None
        return cls(parameters, copies(tuple(parameters.values())), algorithm.ema)

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Take in the weights after an iteration, 0, 1, ..."""
        kept = min(self.decay, (1 + iteration) / (10 + iteration))
        for tensor, parameter in zip(self.tensors, self.parameters.values(), strict=True):
            tensor.lerp_(parameter.detach(), 1 - kept)

    def applied(self) -> AbstractContextManager[None]:
        """The network with the averaged weights."""
        return exchanged(tuple(self.parameters.values()), self.tensors)

    def state(self) -> dict[str, Tensor]:
        """The averages by name; of those in parts rank 0 gets the whole, and all call it."""
        pairs = zip(self.parameters, self.tensors, strict=True)
        return {f"average/{name}": whole_on_first(tensor) for name, tensor in pairs}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave; `ValueError` when it has another average or none."""
        for (name, parameter), tensor in zip(self.parameters.items(), self.tensors, strict=True):
            kept = state.get(f"average/{name}")
            if kept is None or kept.shape != parameter.shape:
                raise ValueError(f"expected an average of the weights {name}, got none that fits")
            tensor.copy_(part_like(parameter, kept))


def sampling(
    algorithm: Algorithm, average: Average | None, optimizer: torch.optim.Optimizer
) -> WeightSet:
    """The weights that grow an iteration's trees, kept where the objective asks for them."""
    if average is not None and algorithm.rollout == "ema":
        return average.applied
    if algorithm.objective.weight_set != "old":
        return nullcontext
    parameters = tuple(named_parameters(optimizer).values())
    return partial(exchanged, parameters, copies(parameters))


def chosen(
    known: Mapping[str, WeightSet], algorithm: Algorithm, name: str
) -> AbstractContextManager[Any]:
    """The network with the weights of a name; `InputError` when there are none."""
    if name not in known:
        objective = type(algorithm.objective).__name__
        listed = ", ".join(known)
        raise InputError(f"objective: {objective} asks for the weights {name!r}, got {listed}")
    return known[name]()


def copies(parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    """The values of parameters, kept."""
    return tuple(parameter.detach().clone() for parameter in parameters)


def _exchange(parameters: Sequence[nn.Parameter], tensors: Sequence[Tensor]) -> None:
    """Swap values in place: whoever gathers weights from their parts knows where they are kept."""
    for parameter, tensor in zip(parameters, tensors, strict=True):
        # through .data, as the graph of the policy, whose backward pass is to come, sees no change
        trained = parameter.data.clone()
        parameter.data.copy_(tensor)
        tensor.copy_(trained)
