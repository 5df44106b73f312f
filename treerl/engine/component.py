"""What every part of an algorithm may do beside its job: learn from iterations, and be saved."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from treerl.engine.step import Step


class Component:
    """Base of branchings, normalisers, weightings, baselines, selections and objectives.

    Most are frozen dataclasses without memory. One that learns keeps its memory in fields with
    `field(init=False)`, which are no parameters, and implements the three methods below.
    """

    def observe(self, step: "Step") -> None:
        """Called after every iteration's update with all that it did: tree, tasks, scores, ..."""
        return

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep of this component, tensors by name; empty without memory."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned; `ValueError` when it is not this component's."""
        if state:
            names = ", ".join(state)
            raise ValueError(f"{type(self).__name__} has no memory, but was given {names}")
