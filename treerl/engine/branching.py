"""Where trees split: how many children each node gets at each step, and which steps are sampled."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from treerl.engine.component import Component
from treerl.engine.tree_spec import Tail, TreeSpec

MANY = 10**9
BranchingFactor = Annotated[int, Ge(1), Le(64)]
Depth = Annotated[int, Ge(1), Le(999)] | Literal["all"]  # "all" is every step but the last


Distribution = tuple[tuple[float, TreeSpec], ...]  # trees with their probabilities, summing to 1


class Branching(Component, ABC):
    """Decides the trees; a plug-in is a dataclass whose fields are its parameters.

    `treerl plan` computes expectations from `distribution` and `support`, the trainer draws from
    them: both read the same numbers.
    """

    @abstractmethod
    def distribution(self, steps: int, iteration: int) -> Distribution:
        """The trees that this iteration may grow; one is drawn and shared by all prompts."""

    def support(self, steps: int) -> tuple[TreeSpec, ...]:
        """Every tree that any iteration may grow, each once; by default those of iteration 0."""
        return tuple(dict.fromkeys(spec for _, spec in self.distribution(steps, 0)))

    def phases(self, steps: int, iterations: int) -> Iterator[tuple[Distribution, int]]:
        """The distributions of the first iterations, and for how many in a row each holds."""
        each = (self.distribution(steps, iteration) for iteration in range(iterations))
        for distribution, same in groupby(each):
            yield distribution, sum(1 for _ in same)

    def specs(
        self, steps: int, iteration: int, uniform: float, tasks: Sequence[Any]
    ) -> tuple[TreeSpec, ...]:
        """The tree of each task, drawn by one number in [0, 1); the same for all by default.

        Trees that differ from task to task must be stochastic at the same steps.
        """
        return (draw(self.distribution(steps, iteration), uniform),) * len(tasks)

    def forest(
        self, steps: int, iteration: int, uniform: float, tasks: Sequence[Any], trees: int
    ) -> tuple[tuple[TreeSpec, ...], ...]:
        """The trees of each task: by default `trees` of the one that `specs` gives it."""
        return tuple((spec,) * trees for spec in self.specs(steps, iteration, uniform, tasks))

    def bounds(self, trees: int) -> tuple[int, int]:
        """The fewest and the most trees that a task may get where `trees` are usual."""
        return (trees, trees)

    def stored(self, steps: int, trees: int) -> int:
        """Latents kept of a task at most, as a mean over the tasks of an iteration."""
        return trees * max(spec.stored for spec in self.support(steps))

    def walked(self, tail: Tail) -> "Branching":
        """The same trees with tails like that."""
        return self if tail == Tail() else _Walked(self, tail)


@dataclass(frozen=True)
class _Walked(Branching):
    """The trees of another branching, their tails walked in another way."""

    branching: Branching
    tail: Tail

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
        return tuple(tuple(self._spec(spec) for spec in specs) for specs in forest)

    def bounds(self, trees: int) -> tuple[int, int]:
        return self.branching.bounds(trees)

    def _of(self, distribution: Distribution) -> Distribution:
        return tuple((probability, self._spec(spec)) for probability, spec in distribution)

    def _spec(self, spec: TreeSpec) -> TreeSpec:
        return spec.walked(self.tail)


def draw(distribution: Distribution, uniform: float) -> TreeSpec:
    """The tree that a number in [0, 1) picks."""
    total = 0.0
    for probability, spec in distribution:
        total += probability
        if uniform < total:
            return spec
    return distribution[-1][1]  # the probabilities sum to 1 but for rounding


@cache
def window(steps: int, start: int, depth: int, branching_factor: int) -> TreeSpec:
    """`branching_factor` children at the steps start ... start + depth - 1, one elsewhere."""
    if depth < 1 or start < 0 or start + depth > steps - 1:
        raise ValueError(
            f"a window of {depth} steps from {start} does not fit before the last of {steps} steps"
        )
    inside = tuple(start <= step < start + depth for step in range(steps))
    return TreeSpec(tuple(branching_factor if here else 1 for here in inside), inside)


def ode(steps: int) -> TreeSpec:
    """A chain with no stochastic step: plain sampling."""
    return TreeSpec((1,) * steps, (False,) * steps)


def width(depth: int | str, steps: int) -> int:
    """The number of stochastic steps; "all" is every step but the last, whose density explodes."""
    if isinstance(depth, str):
        return steps - 1
    if depth > steps - 1:
        raise ValueError(f"expected depth <= env.steps - 1 = {steps - 1}, got {depth}")
    return depth


@dataclass(frozen=True)
class Geometric(Branching):
    """TreeGRPO's random window (2512.08153 Eq. 7): Pr[s] = (1-r) rˢ / (1-r^(T-d)), s < T-d."""

    branching_factor: BranchingFactor = 3  # k, children of a node in the window
    depth: Depth = 3  # d, stochastic steps
    ratio: Annotated[float, Gt(0), Lt(1)] = 0.5  # r

    def distribution(self, steps: int, iteration: int) -> Distribution:
        return _geometric(steps, width(self.depth, steps), self.branching_factor, self.ratio)


@dataclass(frozen=True)
class Uniform(Branching):
    """A window whose start is uniform over 0 ... T-d-1."""

    branching_factor: BranchingFactor = 3
    depth: Depth = 3

    def distribution(self, steps: int, iteration: int) -> Distribution:
        return _uniform(steps, width(self.depth, steps), self.branching_factor)


@dataclass(frozen=True)
class Shift(Branching):
    """A window that moves by `stride` every `interval` iterations, and back after the end.

    The moving window of the TreeGRPO authors' code and of MixGRPO (2507.21802), whose roll-back it
    takes.
    """

    branching_factor: BranchingFactor = 2
    depth: Depth = 4
    interval: Annotated[int, Ge(1), Le(MANY)] = 50  # iterations between moves
    stride: Annotated[int, Ge(1), Le(MANY)] = 1  # steps that a move takes

    def distribution(self, steps: int, iteration: int) -> Distribution:
        depth = width(self.depth, steps)
        start = iteration // self.interval * self.stride % (steps - depth)
        return ((1.0, window(steps, start, depth, self.branching_factor)),)

    def support(self, steps: int) -> tuple[TreeSpec, ...]:
        moves = range(steps - width(self.depth, steps))  # then it begins again
        specs = [self.distribution(steps, move * self.interval)[0][1] for move in moves]
        return tuple(dict.fromkeys(specs))


@dataclass(frozen=True)
class Fixed(Branching):
    """A window that stays; depth "all" and one child is the chain of Flow-GRPO and DanceGRPO."""

    branching_factor: BranchingFactor = 1
    depth: Depth = "all"
    start: Annotated[int, Ge(0), Le(999)] = 0  # the first stochastic step

    def distribution(self, steps: int, iteration: int) -> Distribution:
        depth = width(self.depth, steps)
        if self.start + depth > steps - 1:
            raise ValueError(
                f"expected start + depth <= env.steps - 1 = {steps - 1}, got {self.start} + {depth}"
            )
        return ((1.0, window(steps, self.start, depth, self.branching_factor)),)


@cache
def _geometric(steps: int, depth: int, branching_factor: int, ratio: float) -> Distribution:
    starts = range(steps - depth)
    total = sum(ratio**start for start in starts)
    return tuple(
        (ratio**start / total, window(steps, start, depth, branching_factor)) for start in starts
    )


@cache
def _uniform(steps: int, depth: int, branching_factor: int) -> Distribution:
    starts = range(steps - depth)
    return tuple(
        (1 / len(starts), window(steps, start, depth, branching_factor)) for start in starts
    )
