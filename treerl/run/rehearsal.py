"""The phases of an iteration on a given number of rows: to count their memory, or to time them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from treerl.backbone import lora
from treerl.backbone.contract import Backbone, Condition
from treerl.backbone.env import BackboneEnv
from treerl.engine.algorithm import Algorithm
from treerl.engine.losses import EdgeLosses, LeafLosses, Losses
from treerl.engine.minibatch import Minibatch
from treerl.engine.objective import EdgeObjective
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weight_sets import exchanged

Work = Callable[[], None]


@dataclass(frozen=True)
class Rehearsal:
    """Makes the calls of each phase as a run does; what they are given is made before them."""

    backbone: Backbone
    env: BackboneEnv  # with one task
    condition: Condition  # of that task
    algorithm: Algorithm
    spec: TreeSpec  # of the trees: how many children a node has
    parameters: Sequence[nn.Parameter]  # that train
    others: Sequence[Tensor]  # values of theirs that an objective compares with
    latents: Callable[[int], Tensor]  # so many, in the dtype in which they are stored

    def window(self, rows: int) -> Work:
        """A forward of `rows` states without gradient, as a sampled step makes it."""
        return self._forward(rows, any(self.spec.stochastic))

    def tails(self, rows: int) -> Work:
        """The same in tails or a trunk, and what these prepare."""
        return self._forward(rows, False)

    def decode(self, rows: int) -> Work:
        """The images or videos of `rows` latents."""
        x = self.latents(rows).to(self.env.device)
        condition = self.condition.to(self.env.device)
        task = torch.zeros(rows, dtype=torch.int64, device=self.env.device)

        def work() -> None:
            with torch.no_grad():
                self.backbone.decode(x, condition.take(task))

        return work

    def update(self, rows: int) -> Work:
        """The loss of `rows` states with all their edges, and its backward pass.

        Gradients are there before it, as those of an optimizer step's minibatches add up.
        """
        losses, batch = self._losses(rows)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

        def work() -> None:
            value = losses.loss(batch).value
            (value * batch.weight.to(value)).sum().backward()  # type: ignore[no-untyped-call]

        return work

    def _forward(self, rows: int, stochastic: bool) -> Work:
        parents = self._tree(rows).at(torch.arange(rows))

        def work() -> None:
            with torch.no_grad(), self.env.walking(stochastic):
                self.env.policy(parents, stochastic)

        return work

    def _losses(self, rows: int) -> tuple[Losses, Minibatch]:
        tree = self._tree(rows)
        advantage = torch.zeros(len(tree), dtype=torch.float64)
        on_edges = isinstance(self.algorithm.objective, EdgeObjective)
        kind = EdgeLosses if on_edges else LeafLosses
        losses = kind(self.env, tree, advantage, self.algorithm, rows, self._weights)
        parents = torch.arange(rows)
        children = tree.edges
        owner = tree.parent[children]
        if not on_edges:
            parents = tree.leaves[:rows]
            children = parents
            owner = torch.arange(rows)
        weight = torch.full((len(children),), 1 / len(children), dtype=torch.float64)
        return losses, Minibatch(parents, children, owner, weight, rows)

    def _weights(self, name: str) -> AbstractContextManager[Any]:
        start = self.backbone.start
        if name == "start" and start is not None and start.bare:
            return lora.reference(self.backbone)
        return exchanged(self.parameters, self.others)

    def _tree(self, rows: int) -> Tree:
        """Parents at the first sampled step, or at the start, and all their children."""
        sampled = self.spec.stochastic
        move = sampled.index(True) if any(sampled) else 0
        each = max(self.spec.children)
        parents = torch.arange(rows)
        owner = parents.repeat_interleave(each)
        count = rows + len(owner)
        is_child = torch.arange(count) >= rows
        step = torch.full((count,), self.spec.at[move])
        return Tree(
            x=self.latents(count),
            slot=torch.arange(count),
            task=torch.zeros(count, dtype=torch.int64),
            parent=torch.cat([torch.full((rows,), Tree.NO_PARENT), owner]),
            log_prob=torch.zeros(count, dtype=torch.float64),
            stochastic=is_child,
            step=step + is_child * self.spec.strides[move],
            key=torch.arange(count),
            sizes=(rows, len(owner)),
        )
