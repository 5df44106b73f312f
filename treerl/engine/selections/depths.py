"""Pruning by depth: some steps below the last split are left out, others with time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from treerl.engine.selection import Selection
from treerl.engine.step import Step
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec


@dataclass(frozen=True)
class Depths(Selection):
    """All but `size` sampled steps from the last split on (BranchGRPO, arXiv 2509.06040).

    The gap moves by one step every `interval` iterations until it reaches the last sampled step. A
    tree that never splits is trained whole.
    """

    size: Annotated[int, Ge(1), Le(999)] = 4
    interval: Annotated[int, Ge(1), Le(10**9)] = 30  # iterations between moves
    memory: dict[str, Tensor] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __call__(self, tree: Tree, advantage: Tensor, generator: np.random.Generator) -> Tensor:
        sampled = [bool(tree.stochastic[tree.level(move + 1)].any()) for move in range(tree.depth)]
        trained = torch.zeros(len(tree), dtype=torch.bool)
        for move in self._trained(tree.sizes, sampled):
            trained[tree.level(move + 1)] = True
        return tree.stochastic & trained

    def decisions(self, spec: TreeSpec) -> int:
        return sum(spec.widths[move] for move in self._trained(spec.widths, spec.stochastic))

    def edges(self, spec: TreeSpec) -> float:
        return sum(spec.widths[move + 1] for move in self._trained(spec.widths, spec.stochastic))

    def observe(self, step: Step) -> None:
        self.memory["iteration"] = torch.tensor(step.iteration + 1)

    def state(self) -> dict[str, Tensor]:
        return dict(self.memory)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if not set(state) <= {"iteration"}:
            raise ValueError(f"expected the tensor 'iteration', got {', '.join(state)}")
        self.memory.update(state)

    def _trained(self, widths: Sequence[int], sampled: Sequence[bool]) -> list[int]:
        """The moves whose edges are trained, of levels that are `widths` `[L + 1]` wide."""
        moves = [move for move, here in enumerate(sampled) if here]
        splits = [place for place, move in enumerate(moves) if widths[move + 1] > widths[move]]
        if not splits:
            return moves
        slid = int(self.memory.get("iteration", torch.tensor(0))) // self.interval
        first = max(splits[-1], 1)  # the first sampled step is always trained
        gap = max(first, min(splits[-1] + slid, len(moves) - self.size))
        return moves[:gap] + moves[gap + self.size :]
