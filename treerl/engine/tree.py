"""The forest of a rollout as flat tensors: roots first, then level by level, siblings adjacent."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """Where a denoising process stands."""

    x: Tensor  # [M, ...] latents
    step: Tensor  # [M] int64, denoising steps taken
    prompt: Tensor  # [M] int64, row of the prompt

    def take(self, index: Tensor) -> "State":
        """The rows `index`."""
        return State(self.x[index], self.step[index], self.prompt[index])


@dataclass(frozen=True)
class Tree:
    """All trees of a rollout: N nodes; an edge is the node it leads to.

    Node 0 ... R-1 are the roots, level by level follows (level t holds the nodes after t denoising steps), a parent
    comes before its children, and all paths have the same length, so the last level holds the leaves.
    """

    x: Tensor  # [K, ...] the latents that are read again: both ends of every stochastic edge, and the leaves
    slot: Tensor  # [N] int64, row of `x`, DROPPED where the latent was not kept
    prompt: Tensor  # [N] int64, row of the prompt the tree belongs to
    parent: Tensor  # [N] int64, NO_PARENT at the roots
    log_prob: Tensor  # [N] of the edge into the node, mean over dimensions; NaN where that edge was not sampled
    stochastic: Tensor  # [N] bool, whether the edge into the node was sampled (trainable)
    step: Tensor  # [N] int64, denoising steps taken
    key: Tensor  # [N] int64, the bits of the node's noise key
    sizes: tuple[int, ...]  # [T + 1] nodes per level

    NO_PARENT: ClassVar[int] = -1
    DROPPED: ClassVar[int] = -1

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def dims(self) -> int:
        """D, the number of dimensions of a latent."""
        return self.x[0].numel()

    def level(self, step: int) -> slice:
        """The nodes after `step` denoising steps."""
        start = sum(self.sizes[:step])
        return slice(start, start + self.sizes[step])

    @property
    def leaves(self) -> Tensor:
        """Nodes of the last level `[L]`."""
        last = self.level(len(self.sizes) - 1)
        return torch.arange(last.start, last.stop)

    @property
    def edges(self) -> Tensor:
        """The sampled (trainable) edges `[E]`, as the nodes they lead to."""
        return self.stochastic.nonzero().flatten()

    def at(self, nodes: Tensor) -> State:
        """The states of `nodes`; only nodes whose latent was kept have one."""
        slot = self.slot[nodes]
        if bool((slot == Tree.DROPPED).any()):
            raise ValueError(
                "the latent of a node outside the window was asked for; it was not kept"
            )
        return State(self.x[slot.to(self.x.device)], self.step[nodes], self.prompt[nodes])

    def tree_of(self) -> Tensor:
        """The root `[N]` of the tree that each node belongs to."""
        root = torch.arange(len(self))
        for step in range(1, len(self.sizes)):
            level = self.level(step)
            root[level] = root[self.parent[level]]
        return root

    def without(self, trees: Tensor) -> "Tree":
        """The forest without the trees of these roots."""
        kept = ~torch.isin(self.tree_of(), trees)
        place = kept.cumsum(0) - 1  # where a kept node goes
        stored = kept & (self.slot != Tree.DROPPED)
        slot = torch.full_like(self.slot, Tree.DROPPED)
        slot[stored] = torch.arange(int(stored.sum()))
        parent = torch.where(
            self.parent == Tree.NO_PARENT, Tree.NO_PARENT, place[self.parent.clamp(min=0)]
        )
        return Tree(
            x=self.x[self.slot[stored].to(self.x.device)],
            slot=slot[kept],
            prompt=self.prompt[kept],
            parent=parent[kept],
            log_prob=self.log_prob[kept],
            stochastic=self.stochastic[kept],
            step=self.step[kept],
            key=self.key[kept],
            sizes=tuple(int(kept[self.level(step)].sum()) for step in range(len(self.sizes))),
        )

    def path(self, node: int) -> list[int]:
        """The nodes from the root to `node`."""
        path = [node]
        while int(self.parent[path[-1]]) != Tree.NO_PARENT:
            path.append(int(self.parent[path[-1]]))
        return path[::-1]

    def path_log_prob(self, node: int) -> Tensor:
        """Sum of the sampled edges' log-probs from the root to `node`; deterministic edges contribute nothing."""
        path = torch.tensor(self.path(node))
        return self.log_prob[path[self.stochastic[path]]].sum()
