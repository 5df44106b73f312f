"""Trees that differ from prompt to prompt by what earlier iterations measured, under a budget."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from treerl.engine.allocation import allocate, mean_errors
from treerl.engine.branching import Branching, BranchingFactor, Depth, Distribution, width
from treerl.engine.nested import nested
from treerl.engine.task import Task
from treerl.engine.tree_spec import Tail, TreeSpec

if TYPE_CHECKING:
    from treerl.engine.step import Step

_MOST_SHAPES = 4096  # of a prompt's trees, to choose from
_BACKWARD = 3  # forwards that a trained node costs
_MEMORY = {"prompts", "variance", "profile"}


@dataclass(frozen=True)
class Adaptive(Branching):
    """More trees and wider splits where a prompt's leaves differ, for what a fixed window costs.

    A window of `branching_factor` children at `depth` steps from `start` says what an iteration may
    spend: its sampling forwards + 3 x its trained nodes, times the prompts; never more. From the
    second iteration on, that goes to the prompts and steps where it helps most: how much of the
    variance of the trained values each step decided (`treerl.engine.nested`) tells by how much a
    tree or a child more lowers the variance of a prompt's mean. A prompt whose leaves all agreed
    gets one tree of two leaves; one that was not met yet counts as an average one.
    """

    branching_factor: Annotated[int, Ge(2), Le(64)] = 2
    depth: Depth = 3
    start: Annotated[int, Ge(0), Le(999)] = 0
    widest: BranchingFactor = 4  # children of a node at most
    most_trees: Annotated[int, Ge(1), Le(64)] = 2  # of a prompt
    rate: Annotated[float, Gt(0), Le(1)] = 0.5  # how fast new measurements replace old ones
    explore: Annotated[float, Ge(0), Le(1)] = 0.2  # share of the variance laid evenly on all steps
    tail: Tail = field(init=False, default=Tail())
    memory: dict[str, Tensor] = field(init=False, repr=False, default_factory=dict)

    def walked(self, tail: Tail) -> "Adaptive":
        copied = copy.copy(self)  # with the same memory
        object.__setattr__(copied, "tail", tail)
        return copied

    def distribution(self, steps: int, iteration: int) -> Distribution:
        return ((1.0, self._even(steps)),)

    def support(self, steps: int) -> tuple[TreeSpec, ...]:
        return tuple(self._spec(steps, children) for children in self._children(steps))

    def bounds(self, trees: int) -> tuple[int, int]:
        return (1, max(trees, self.most_trees))

    def stored(self, steps: int, trees: int) -> int:
        widest = super().stored(steps, self.bounds(trees)[1])
        even = self._even(steps)
        # a latent that is kept has a forward of its own, but for leaves whose tail is one move
        kept = 2 if len(even.children) - even.tail == 1 else 1
        return min(widest, kept * trees * _cost(even))

    def forest(
        self, steps: int, iteration: int, uniform: float, tasks: Sequence[Any], trees: int
    ) -> tuple[tuple[TreeSpec, ...], ...]:
        even = self._even(steps)
        if not self.memory:
            return ((even,) * trees,) * len(tasks)
        most = self.bounds(trees)[1]
        shapes = list(product(range(1, most + 1), self._children(steps)))
        specs = [self._spec(steps, children) for _, children in shapes]
        prices = [count * _cost(spec) for (count, _), spec in zip(shapes, specs, strict=True)]
        stages = torch.tensor([(count, *children) for count, children in shapes])
        chosen = allocate(
            mean_errors(self._variances(tasks), stages),
            torch.tensor(prices, dtype=torch.float64),
            len(tasks) * trees * _cost(even),
        )
        return tuple((specs[number],) * shapes[number][0] for number in chosen.tolist())

    def observe(self, step: "Step") -> None:
        tree = step.tree
        parts = nested(tree, step.advantages.values[tree.leaves]).by_task
        sampled = torch.unique(tree.step[tree.parent[tree.edges]]).tolist()
        nowhere = torch.full((len(step.tasks),), torch.nan, dtype=torch.float64)
        # what each step decided, of each task, where it split [P, 1 + d]
        table = torch.stack([parts.get(number, nowhere) for number in (-1, *sampled)], 1)
        seen = self._seen()
        for task, row in zip(step.tasks, table, strict=True):
            if not bool(row.isnan().all()):  # a task whose trees were dropped was not measured
                total = float(row.nansum())
                seen[_number(task)] = self._mixed(seen.get(_number(task), total), total)
        new = table.nanmean(0)
        old = self.memory.get("profile", new)
        profile = torch.where(old.isnan(), new, self._mixed(old, new))
        self.memory["prompts"] = torch.tensor(list(seen), dtype=torch.int64)
        self.memory["variance"] = torch.tensor(list(seen.values()), dtype=torch.float64)
        self.memory["profile"] = torch.where(new.isnan(), old, profile)

    def state(self) -> dict[str, Tensor]:
        return dict(self.memory)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if state and set(state) != _MEMORY:
            raise ValueError(f"expected {', '.join(sorted(_MEMORY))}, got {', '.join(state)}")
        self.memory.clear()
        self.memory.update(state)

    @property
    def _widest(self) -> int:
        return max(self.widest, self.branching_factor)

    def _mixed(self, old: Any, new: Any) -> Any:
        return old + self.rate * (new - old)

    def _seen(self) -> dict[int, float]:
        """The variance of each prompt that was met, by its number."""
        if not self.memory:
            return {}
        pairs = zip(self.memory["prompts"], self.memory["variance"], strict=True)
        return {int(number): float(variance) for number, variance in pairs}

    def _children(self, steps: int) -> list[tuple[int, ...]]:
        """Children at the sampled steps, of every tree that there may be."""
        below = width(self.depth, steps) - 1
        if self.most_trees * self._widest ** (below + 1) > _MOST_SHAPES:
            raise ValueError(
                f"expected most_trees · widest^depth of at most {_MOST_SHAPES}, got "
                f"{self.most_trees} · {self._widest}^{below + 1}; lower one of them"
            )
        first = range(2, self._widest + 1)
        return list(product(first, *[range(1, self._widest + 1)] * below))

    def _variances(self, tasks: Sequence[Any]) -> Tensor:
        """What each step is expected to decide, of each task `[P, 1 + d]`."""
        seen = self._seen()
        usual = sum(seen.values()) / max(len(seen), 1)
        profile = self.memory["profile"].nan_to_num().clamp(min=0)
        share = profile / profile.sum().clamp(min=1e-30)
        share = (1 - self.explore) * share + self.explore / len(share)
        totals = [max(seen.get(_number(task), usual), 0.0) for task in tasks]
        return torch.outer(torch.tensor(totals, dtype=torch.float64), share)

    def _even(self, steps: int) -> TreeSpec:
        return self._spec(steps, (self.branching_factor,) * width(self.depth, steps))

    def _spec(self, steps: int, children: tuple[int, ...]) -> TreeSpec:
        return _spec(steps, self.start, children).walked(self.tail)


def _cost(spec: TreeSpec) -> int:
    return spec.forwards + _BACKWARD * spec.decisions


def _number(task: Any) -> int:
    """A prompt as a number: a checkpoint need not hold its text."""
    text = Task.of(task).prompt if isinstance(task, Task | str) else repr(task)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], signed=True)


@cache
def _spec(steps: int, start: int, children: tuple[int, ...]) -> TreeSpec:
    depth = len(children)
    if start + depth > steps - 1:
        raise ValueError(
            f"expected start + depth <= env.steps - 1 = {steps - 1}, got {start} + {depth}"
        )
    after = steps - start - depth
    inside = tuple(start <= step < start + depth for step in range(steps))
    return TreeSpec((*(1,) * start, *children, *(1,) * after), inside)
