"""The forest of a rollout as flat tensors: roots first, then level by level, siblings adjacent."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from treerl.engine.coupling import Births


@dataclass(frozen=True)
class State:
    """Where M processes stand."""

    x: Tensor  # [M, ...] latents
    step: Tensor  # [M] int64, steps taken; in a rollout and an update on the CPU
    task: Tensor  # [M] int64, row of the task; likewise

    def take(self, index: Tensor | slice) -> "State":
        """The rows `index`."""
        return State(self.x[index], self.step[index], self.task[index])


@dataclass(frozen=True)
class Tree:
    """All trees of a rollout: N nodes; an edge is the node it leads to.

    Nodes 0 ... R-1 are the roots, level by level follows (level t holds the nodes after t moves), a
    parent comes before its children, and all paths have the same length, so the last level holds
    the leaves. One tree of two steps with two children each:

        node     0   1  2   3  4  5  6
        parent  -1   0  0   1  1  2  2
        step     0   1  1   2  2  2  2      sizes (1, 2, 4)
    """

    x: Tensor  # [K, ...] the latents that are read again: both ends of sampled edges, and leaves
    slot: Tensor  # [N] int64, row of `x`, DROPPED where the latent was not kept in this process
    task: Tensor  # [N] int64, row of the task that the tree belongs to
    parent: Tensor  # [N] int64, NO_PARENT at the roots
    log_prob: (
        Tensor  # [N] float64 of the edge into the node, mean over dimensions; NaN if not sampled
    )
    stochastic: Tensor  # [N] bool, whether the edge into the node was sampled (trainable)
    step: Tensor  # [N] int64, steps taken
    key: Tensor  # [N] int64, the bits of the node's noise key
    sizes: tuple[int, ...]  # [L + 1] nodes per level
    previewed: Tensor | None = None  # [Q] int64, inner nodes whose x̂₀ was kept
    x0: Tensor | None = None  # [Q, ...] their x̂₀
    granularities: tuple[int, ...] = ()  # strides by which the leaves were finished as well
    finishes: tuple[Tensor, ...] = ()  # [L, ...] each, what that gave; held until it is scored

    NO_PARENT: ClassVar[int] = -1
    DROPPED: ClassVar[int] = -1

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def dims(self) -> int:
        """D, the number of dimensions of a latent."""
        return self.x.shape[1:].numel()

    @property
    def depth(self) -> int:
        """L, the number of moves from a root to a leaf."""
        return len(self.sizes) - 1

    @property
    def steps(self) -> int:
        """T, the steps that a leaf has taken; more than L where moves leap over some."""
        return int(self.step[-1]) if len(self) else self.depth

    @property
    def forwards(self) -> int:
        """Denoiser evaluations that its growth took, those of further walks of the tails too."""
        trained = self.step[self.edges]
        left = self.steps - (int(trained.max()) if len(trained) else 0)
        walks = sum(-(-left // stride) for stride in self.granularities)
        return sum(self.sizes[:-1]) + walks * self.sizes[-1]

    def finished(self) -> list[State]:
        """The samples of the leaves: as the tree has them, and of each further walk."""
        leaves = self.at(self.leaves)
        return [leaves, *(State(x, leaves.step, leaves.task) for x in self.finishes)]

    def level(self, number: int) -> slice:
        """The nodes after `number` moves."""
        start = sum(self.sizes[:number])
        return slice(start, start + self.sizes[number])

    @property
    def leaves(self) -> Tensor:
        """Nodes of the last level `[L]`."""
        last = self.level(self.depth)
        return torch.arange(last.start, last.stop)

    @property
    def edges(self) -> Tensor:
        """The sampled (trainable) edges `[E]`, as the nodes they lead to."""
        return self.stochastic.nonzero().flatten()

    def births(self, nodes: Tensor, device: torch.device | str = "cpu") -> Births:
        """Where `nodes` `[M]`, which are no roots, come from: what their noise is drawn by."""
        family, count = self._families
        first = count.cumsum(0) - count
        number = nodes - first[family[nodes]]
        parent = self.key[self.parent[nodes]].numpy().view(np.uint64)
        return Births(parent, number.numpy(), count[family[nodes]].numpy(), device)

    @cached_property
    def _families(self) -> tuple[Tensor, Tensor]:
        """The family `[N]` of each node, and the children `[F]` of each: siblings are adjacent."""
        _, family, count = torch.unique_consecutive(
            self.parent, return_inverse=True, return_counts=True
        )
        return family, count

    def here(self, nodes: Tensor) -> Tensor:
        """Those of `nodes` whose latent was kept in this process, in their order."""
        return nodes[self.slot[nodes] != Tree.DROPPED]

    def at(self, nodes: Tensor) -> State:
        """The states of `nodes`; only nodes whose latent was kept have one."""
        slot = self.slot[nodes]
        if bool((slot == Tree.DROPPED).any()):
            raise ValueError("the latent of a node outside the window was not kept")
        return State(self.x[slot.to(self.x.device)], self.step[nodes], self.task[nodes])

    def previews(self) -> State:
        """The x̂₀ of the previewed nodes `[Q]`, as finished states."""
        if self.previewed is None or self.x0 is None:
            raise ValueError("this forest was grown without previews")
        finished = torch.full_like(self.previewed, self.steps)
        return State(self.x0, finished, self.task[self.previewed])

    def roots(self) -> Tensor:
        """The root `[N]` of the tree that each node belongs to."""
        root = torch.arange(len(self))
        for number in range(1, len(self.sizes)):
            level = self.level(number)
            root[level] = root[self.parent[level]]
        return root

    def without(self, trees: Tensor) -> "Tree":
        """The forest without the trees of these roots."""
        kept = ~torch.isin(self.roots(), trees)
        place = kept.cumsum(0) - 1  # where a kept node goes: kept (1, 0, 1) gives 0, 0, 1
        stored = kept & (self.slot != Tree.DROPPED)
        slot = torch.full_like(self.slot, Tree.DROPPED)
        slot[stored] = torch.arange(int(stored.sum()))
        inner = self.parent != Tree.NO_PARENT
        parent = torch.where(inner, place[self.parent.clamp(min=0)], Tree.NO_PARENT)
        previewed = self.previewed
        x0 = self.x0
        if previewed is not None and x0 is not None:
            here = kept[previewed]
            x0 = x0[here.to(x0.device)]
            previewed = place[previewed[here]]
        return Tree(
            x=self.x[self.slot[stored].to(self.x.device)],
            slot=slot[kept],
            task=self.task[kept],
            parent=parent[kept],
            log_prob=self.log_prob[kept],
            stochastic=self.stochastic[kept],
            step=self.step[kept],
            key=self.key[kept],
            sizes=tuple(int(kept[self.level(number)].sum()) for number in range(len(self.sizes))),
            previewed=previewed,
            x0=x0,
            granularities=self.granularities,
        )
