"""What a tree looks like before it is grown, and how much work it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Annotated

from annotated_types import Ge, Le

Order = Annotated[int, Ge(1), Le(2)]  # of the solver of the steps after the last sampled one
Stride = Annotated[int, Ge(1), Le(1000)]  # steps of the schedule that one move takes


@dataclass(frozen=True)
class Tail:
    """How the steps after the last sampled one are walked.

    A leaf is what `stride` finishes. Every granularity is a stride by which it is finished once
    more, to be scored beside it (G²RPO, arXiv 2510.01982).
    """

    stride: Stride = 1
    order: Order = 1
    granularities: tuple[Stride, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "granularities", tuple(self.granularities))
        for stride in (self.stride, *self.granularities):
            if stride < 1:
                raise ValueError(f"a tail takes 1 step or more at once, got {stride}")


@dataclass(frozen=True)
class TreeSpec:
    """What a tree looks like, level by level; it counts itself, so that nobody recomputes.

    `TreeSpec((1, 3, 1), (False, True, False))` is a trunk, three sampled children, and a tail each.
    A deterministic move may take several steps of the schedule at once: with strides (1, 1, 4) the
    tail of that tree is one evaluation for four steps.
    """

    children: tuple[int, ...]  # [L] children of every live node
    stochastic: tuple[bool, ...]  # [L] whether the move is sampled (SDE) or deterministic (ODE)
    strides: tuple[int, ...] = ()  # [L] steps of the schedule that it takes; empty is 1 each
    order: Order = 1
    granularities: tuple[Stride, ...] = ()  # of further walks of the tails, see `Tail`

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", self.strides or (1,) * len(self.children))
        moves = zip(self.children, self.stochastic, self.strides, strict=True)
        for level, (count, sampled, stride) in enumerate(moves):
            if count < 1 or (count > 1 and not sampled):
                raise ValueError(
                    f"step {level}: {count} children need a stochastic step; "
                    "a deterministic one has one"
                )
            if stride < 1 or (stride > 1 and sampled):
                raise ValueError(f"step {level}: a sampled move takes one step, got {stride}")

    @property
    def steps(self) -> int:
        """T, steps of the schedule."""
        return sum(self.strides)

    @cached_property
    def at(self) -> tuple[int, ...]:
        """Steps taken at each level `[L + 1]`: strides (1, 1, 4) give 0, 1, 2, 6."""
        return (0, *accumulate(self.strides))

    @property
    def start(self) -> int:
        """The first stochastic step; 0 of a tree that has none."""
        return self.at[self.stochastic.index(True)] if any(self.stochastic) else 0

    @cached_property
    def tail(self) -> int:
        """The level after the last stochastic move, where the tails begin; L if nothing is left."""
        sampled = [level for level, here in enumerate(self.stochastic) if here]
        return sampled[-1] + 1 if sampled else 0

    @cached_property
    def walks(self) -> tuple[tuple[int, ...], ...]:
        """The strides of each further walk of a tail: five steps by two are (2, 2, 1)."""
        left = self.steps - self.at[self.tail]
        walks = []
        for stride in self.granularities:
            whole, rest = divmod(left, stride)
            walks.append((stride,) * whole + ((rest,) if rest else ()))
        return tuple(walks)

    def walked(self, tail: Tail) -> "TreeSpec":
        """The same tree with tails like that.

        Five steps in strides of two are two moves, (2, 3): the last one takes what is left over, as
        the steps near the sample change little. A tree without a stochastic step stays as it is.
        """
        if not any(self.stochastic):
            return self
        spec = self._shortened(tail.stride, tail.order)
        return replace(spec, granularities=tail.granularities) if tail.granularities else spec

    def _shortened(self, stride: int, order: Order) -> "TreeSpec":
        left = len(self.children) - self.tail
        if left == 0 or (stride, order) == (1, 1):
            return self
        count = max(1, left // stride)
        strides = [stride] * (count - 1)
        strides.append(left - sum(strides))
        return replace(
            self,
            children=self.children[: self.tail] + (1,) * count,
            stochastic=self.stochastic[: self.tail] + (False,) * count,
            strides=(*self.strides[: self.tail], *strides),
            order=order,
        )

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Nodes of each level `[L + 1]`: children (2, 1, 3) give 1, 2, 2, 6."""
        widths = [1]
        for count in self.children:
            widths.append(widths[-1] * count)
        return tuple(widths)

    @property
    def forwards(self) -> int:
        """Denoiser evaluations of a rollout: one for each node that is no leaf, and further
        walks."""
        return sum(self.widths[:-1]) + self.leaves * sum(map(len, self.walks))

    @property
    def decisions(self) -> int:
        """Nodes that a stochastic step leaves from: what an update evaluates."""
        return sum(self._at(self.widths[:-1]))

    @property
    def edges(self) -> int:
        """Sampled edges: what an update has a loss term for."""
        return sum(self._at(self.widths[1:]))

    @property
    def leaves(self) -> int:
        """Ends of paths."""
        return self.widths[-1]

    @property
    def finished(self) -> int:
        """Samples that are made of the leaves: one each, and one of each further walk."""
        return self.leaves * (1 + len(self.granularities))

    @property
    def stored(self) -> int:
        """Latents that are kept: both ends of every sampled edge, and what is finished."""
        kept = sum(width for width, kept in zip(self.widths, self.kept, strict=True) if kept)
        return kept + self.finished - self.leaves

    @property
    def kept(self) -> tuple[bool, ...]:
        """Levels `[L + 1]` whose latents are read again."""
        into = (False, *self.stochastic)
        out = (*self.stochastic, True)
        return tuple(a or b for a, b in zip(into, out, strict=True))

    @property
    def previewed(self) -> tuple[bool, ...]:
        """Levels `[L + 1]` where an x̂₀ preview tells one branch from another: both ends of edges.

        Leaves need none: they are scored as they are.
        """
        return (*self.kept[:-1], False)

    @property
    def previews(self) -> int:
        """Nodes of the previewed levels."""
        return sum(width for width, here in zip(self.widths, self.previewed, strict=True) if here)

    def _at(self, widths: Sequence[int]) -> list[int]:
        return [width for width, here in zip(widths, self.stochastic, strict=True) if here]
