"""Where trees split: how many children each node gets at each step, and which steps are stochastic."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import cache


@dataclass(frozen=True)
class Shape:
    """What the trees of one iteration look like, step by step."""

    children: tuple[int, ...]  # [T] children of every live node
    stochastic: tuple[
        bool, ...
    ]  # [T] whether the step is sampled (SDE, trained) or deterministic (ODE)
    start: int  # first stochastic step, the name by which plans list the shape

    def __post_init__(self) -> None:
        for step, (count, sampled) in enumerate(zip(self.children, self.stochastic, strict=True)):
            if count < 1 or (count > 1 and not sampled):
                raise ValueError(
                    f"step {step}: {count} children need a stochastic step; a deterministic one has one"
                )

    @property
    def steps(self) -> int:
        return len(self.children)


Law = tuple[tuple[float, Shape], ...]  # shapes with their probabilities, summing to 1


class Branching(ABC):
    """Decides the shape of the trees; a plug-in is a frozen dataclass whose fields come from `tree.*`."""

    @abstractmethod
    def law(self, steps: int, iteration: int) -> Law:
        """The shapes that this iteration's trees may have; one of them is drawn and shared by all prompts."""


@cache
def window(steps: int, start: int, depth: int, branch: int) -> Shape:
    """`branch` children at each of the steps start, ..., start + depth - 1; one deterministic child elsewhere."""
    if depth < 1 or start < 0 or start + depth > steps - 1:
        raise ValueError(
            f"a window of {depth} steps from {start} does not fit before the last of {steps} steps"
        )
    inside = tuple(start <= step < start + depth for step in range(steps))
    return Shape(tuple(branch if here else 1 for here in inside), inside, start)


def ode(steps: int) -> Shape:
    """A chain with no stochastic step: plain sampling."""
    return Shape((1,) * steps, (False,) * steps, 0)


def width(depth: int | str, steps: int) -> int:
    """The number of stochastic steps; "all" is every step but the last, whose density would explode."""
    return steps - 1 if isinstance(depth, str) else depth


def kept(nodes: int, fraction: float) -> int:
    """How many of a tree's nodes are trained: the share rounded down, as DanceGRPO counts, but never none."""
    return max(
        min(nodes, 1), int(Fraction(str(fraction)) * nodes)
    )  # exact: a tree of a bad setting can be vast


@dataclass(frozen=True)
class Geometric(Branching):
    """TreeGRPO's random window (arXiv 2512.08153 Eq. 7): Pr[s] = (1-r) rˢ / (1-r^(T-d)), s = 0 ... T-d-1."""

    branch: int = 3
    depth: int | str = 3
    ratio: float = 0.5

    def law(self, steps: int, iteration: int) -> Law:
        return _geometric(steps, width(self.depth, steps), self.branch, self.ratio)


@dataclass(frozen=True)
class Uniform(Branching):
    """A window whose start is uniform over 0 ... T-d-1."""

    branch: int = 3
    depth: int | str = 3

    def law(self, steps: int, iteration: int) -> Law:
        return _uniform(steps, width(self.depth, steps), self.branch)


@dataclass(frozen=True)
class Shift(Branching):
    """A window that moves by `stride` every `every` iterations, and back to the start after the end.

    The moving window of the TreeGRPO authors' code and of MixGRPO (arXiv 2507.21802), whose roll-back it takes.
    """

    branch: int = 2
    depth: int | str = 4
    every: int = 50
    stride: int = 1

    def law(self, steps: int, iteration: int) -> Law:
        depth = width(self.depth, steps)
        start = iteration // self.every * self.stride % (steps - depth)
        return ((1.0, window(steps, start, depth, self.branch)),)


@dataclass(frozen=True)
class Fixed(Branching):
    """A window that stays at `start`; with depth "all" and branch 1 it is the chain of Flow-GRPO and DanceGRPO."""

    branch: int = 1
    depth: int | str = "all"
    start: int = 0

    def law(self, steps: int, iteration: int) -> Law:
        return ((1.0, window(steps, self.start, width(self.depth, steps), self.branch)),)


@cache
def _geometric(steps: int, depth: int, branch: int, ratio: float) -> Law:
    total = sum(ratio**start for start in range(steps - depth))
    return tuple(
        (ratio**start / total, window(steps, start, depth, branch))
        for start in range(steps - depth)
    )


@cache
def _uniform(steps: int, depth: int, branch: int) -> Law:
    return tuple(
        (1 / (steps - depth), window(steps, start, depth, branch)) for start in range(steps - depth)
    )
