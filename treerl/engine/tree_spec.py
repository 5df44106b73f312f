"""What a tree looks like before it is grown, and how much work it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class TreeSpec:
    """What a tree looks like, step by step; it counts itself, so that nobody recomputes.

    `TreeSpec((1, 3, 1), (False, True, False))` is a trunk, three sampled children, and a tail each.
    """

    children: tuple[int, ...]  # [T] children of every live node
    stochastic: tuple[bool, ...]  # [T] whether the step is sampled (SDE) or deterministic (ODE)

    def __post_init__(self) -> None:
        for step, (count, sampled) in enumerate(zip(self.children, self.stochastic, strict=True)):
            if count < 1 or (count > 1 and not sampled):
                raise ValueError(
                    f"step {step}: {count} children need a stochastic step; "
                    "a deterministic one has one"
                )

    @property
    def steps(self) -> int:
        """T."""
        return len(self.children)

    @property
    def start(self) -> int:
        """The first stochastic step; 0 of a tree that has none."""
        return self.stochastic.index(True) if any(self.stochastic) else 0

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Nodes of each level `[T + 1]`: children (2, 1, 3) give 1, 2, 2, 6."""
        widths = [1]
        for count in self.children:
            widths.append(widths[-1] * count)
        return tuple(widths)

    @property
    def forwards(self) -> int:
        """Denoiser evaluations of a rollout: one for each node that is no leaf."""
        return sum(self.widths[:-1])

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
        """Finished samples."""
        return self.widths[-1]

    @property
    def stored(self) -> int:
        """Latents that are kept: both ends of every sampled edge, and the leaves."""
        return sum(width for width, kept in zip(self.widths, self.kept, strict=True) if kept)

    @property
    def kept(self) -> tuple[bool, ...]:
        """Levels `[T + 1]` whose latents are read again."""
        into = (False, *self.stochastic)
        out = (*self.stochastic, True)
        return tuple(a or b for a, b in zip(into, out, strict=True))

    @property
    def previewed(self) -> tuple[bool, ...]:
        """Levels `[T + 1]` where an x̂₀ preview tells one branch from another: both ends of edges.

        Leaves need none: they are scored as they are.
        """
        return (*self.kept[:-1], False)

    @property
    def previews(self) -> int:
        """Nodes of the previewed levels."""
        return sum(width for width, here in zip(self.widths, self.previewed, strict=True) if here)

    def _at(self, widths: Sequence[int]) -> list[int]:
        return [width for width, here in zip(widths, self.stochastic, strict=True) if here]
