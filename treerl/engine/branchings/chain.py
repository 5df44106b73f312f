"""Plain sampling, for losses that need no sampled step."""

from dataclasses import dataclass

from treerl.engine.branching import Branching, Distribution, ode


@dataclass(frozen=True)
class Chain(Branching):
    """A path without a sampled step: what a loss on leaves trains on (NFT, AWM).

    The samples of a prompt differ by their first noise alone: take several trees a prompt.
    """

    def distribution(self, steps: int, iteration: int) -> Distribution:
        return ((1.0, ode(steps)),)
