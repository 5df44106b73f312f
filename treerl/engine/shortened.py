"""The trees of a branching with tails in fewer moves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from treerl.engine.branching import Branching, Distribution
from treerl.engine.tree_spec import Order, TreeSpec


@dataclass(frozen=True)
class Shortened(Branching):
    """The trees of another branching, their tails in fewer moves."""

    branching: Branching
    stride: int
    order: Order

    def distribution(self, steps: int, iteration: int) -> Distribution:
        return self._of(self.branching.distribution(steps, iteration))

    def support(self, steps: int) -> tuple[TreeSpec, ...]:
        specs = [self._spec(spec) for spec in self.branching.support(steps)]
        return tuple(dict.fromkeys(specs))

    def phases(self, steps: int, iterations: int) -> Iterator[tuple[Distribution, int]]:
        for distribution, count in self.branching.phases(steps, iterations):
            yield self._of(distribution), count

    def forest(
        self, steps: int, iteration: int, uniform: float, tasks: Sequence[Any], trees: int
    ) -> tuple[tuple[TreeSpec, ...], ...]:
        forest = self.branching.forest(steps, iteration, uniform, tasks, trees)
        return tuple(tuple(self._spec(spec) for spec in own) for own in forest)

    def bounds(self, trees: int) -> tuple[int, int]:
        return self.branching.bounds(trees)

    def _of(self, distribution: Distribution) -> Distribution:
        return tuple((probability, self._spec(spec)) for probability, spec in distribution)

    def _spec(self, spec: TreeSpec) -> TreeSpec:
        return spec.shortened(self.stride, self.order)
