"""Where an update's losses come from: minibatches of sampled edges, or of noised leaves."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treerl.engine import noise
from treerl.engine.algorithm import Algorithm
from treerl.engine.chunks import chunks
from treerl.engine.coupling import CoupledDraws
from treerl.engine.env import Env
from treerl.engine.idle import idle
from treerl.engine.minibatch import Minibatch, minibatches
from treerl.engine.noise import Stream
from treerl.engine.objective import EdgeObjective, Edges, LeafObjective, Leaves, Loss
from treerl.engine.policy import KeyedDraws, Policy
from treerl.engine.tree import State, Tree
from treerl.errors import InputError, NumericsError


@dataclass(frozen=True)
class Losses(ABC):
    """The losses of one forest, minibatch by minibatch."""

    env: Env
    tree: Tree
    advantage: Tensor  # [N] float64
    algorithm: Algorithm
    rows: int  # states in every forward
    weights: Callable[[str], AbstractContextManager[Any]]  # the network as in a weight set

    @abstractmethod
    def trained(self, generator: np.random.Generator) -> Tensor:
        """What the update trains, `[N]` bool: the edges that lead to these nodes, or the leaves."""

    @abstractmethod
    def batches(self, trained: Tensor, generator: np.random.Generator) -> list[list[Minibatch]]:
        """The minibatches of each optimizer step, epoch after epoch: all train the same."""

    @abstractmethod
    def loss(self, batch: Minibatch) -> Loss:
        """The loss of a minibatch, with its graph."""

    def idle(self) -> Tensor:
        """A loss of 0 that takes the forwards of `loss`, and like it a backward pass."""
        state = idle(self.env, self.rows)
        policy = self.env.policy(state, stochastic=False)
        weight_set = self.algorithm.objective.weight_set
        if weight_set is not None:
            with torch.no_grad(), self.weights(weight_set):
                self.env.policy(state, stochastic=False)
        return 0 * policy.mode.sum()


@dataclass(frozen=True)
class EdgeLosses(Losses):
    """One forward for each parent: siblings share it."""

    def trained(self, generator: np.random.Generator) -> Tensor:
        selection = self.algorithm.selection
        trained = selection(self.tree, self.advantage, generator)
        if trained.dtype != torch.bool or trained.shape != self.tree.stochastic.shape:
            name = type(selection).__name__
            got = f"{tuple(trained.shape)} {trained.dtype}"
            raise NumericsError(f"selection {name}: expected ({len(self.tree)},) bool, got {got}")
        return trained & self.tree.stochastic

    def batches(self, trained: Tensor, generator: np.random.Generator) -> list[list[Minibatch]]:
        algorithm = self.algorithm
        count = algorithm.optimizer_steps
        steps = []
        for _ in range(algorithm.ppo_epochs):
            steps += minibatches(
                self.tree, trained, count, self.rows, generator, algorithm.reduction
            )
        return steps

    def loss(self, batch: Minibatch) -> Loss:
        objective = self.algorithm.objective
        assert isinstance(objective, EdgeObjective)
        parents = self.tree.at(batch.parents)
        owner = batch.owner.to(self.env.device)
        policy = self.env.policy(parents, stochastic=True).take(owner)
        reference = None
        if objective.weight_set is not None:
            with torch.no_grad(), self.weights(objective.weight_set):
                reference = self.env.policy(parents, stochastic=True).take(owner)
        return objective(policy, self._edges(batch.children, reference))

    def _edges(self, children: Tensor, reference: Policy | None) -> Edges:
        tree = self.tree
        device = self.env.device
        step = tree.step[tree.parent[children]]
        sigma = self.env.sigma(step)
        return Edges(
            x=tree.at(children).x.to(device),
            log_prob=tree.log_prob[children].to(device),
            advantage=self.advantage[children].to(device),
            step=step.to(device),
            sigma=sigma.to(device),
            delta=(sigma - self.env.sigma(tree.step[children])).to(device),
            task=tree.task[children].to(device),
            draws=CoupledDraws(self.algorithm.coupling, tree.births(children, device)),
            reference=reference,
            coefficients=self.env.step_coefficients,
        )


@dataclass(frozen=True)
class LeafLosses(Losses):
    """One forward for each leaf, noised again to a step drawn from its own key."""

    def trained(self, generator: np.random.Generator) -> Tensor:
        trained = torch.zeros(len(self.tree), dtype=torch.bool)
        trained[self.tree.leaves] = True
        return trained

    def batches(self, trained: Tensor, generator: np.random.Generator) -> list[list[Minibatch]]:
        leaves = trained.nonzero().flatten()
        steps = []
        for _ in range(self.algorithm.ppo_epochs):
            order = torch.from_numpy(generator.permutation(leaves.numpy()))
            parts = torch.tensor_split(order, self.algorithm.optimizer_steps)
            steps += [self._step(part) for part in parts]
        return steps

    def loss(self, batch: Minibatch) -> Loss:
        objective = self.algorithm.objective
        assert isinstance(objective, LeafObjective)
        leaves = self._noised(batch.parents)
        denoised = self._denoised(leaves)
        if objective.weight_set is not None:
            with torch.no_grad(), self.weights(objective.weight_set):
                leaves = replace(leaves, reference=self._denoised(leaves))
        return objective(denoised[: batch.real], leaves.first(batch.real))

    def _step(self, nodes: Tensor) -> list[Minibatch]:
        weight = torch.full((self.rows,), 1 / max(len(nodes), 1), dtype=torch.float64)
        nodes = self.tree.here(nodes)
        batches = []
        for index, real in chunks(len(nodes), self.rows):
            leaves = nodes[index]
            owner = torch.arange(real)
            batches.append(Minibatch(leaves, leaves[:real], owner, weight[:real], real))
        return batches

    def _noised(self, nodes: Tensor) -> Leaves:
        tree = self.tree
        device = self.env.device
        draws = KeyedDraws(noise.mix(_keys(tree, nodes), Stream.LEAVES), device)
        step = (draws.uniform(()) * self.env.steps).long().clamp(max=self.env.steps - 1)
        x0 = tree.at(nodes).x.to(device)
        eps = draws.normal(tuple(x0.shape[1:]), torch.float32).to(x0.dtype)
        return Leaves(
            x0=x0,
            x=self.env.noised(x0, eps, step),
            eps=eps,
            advantage=self.advantage[nodes].to(device),
            step=step,
            sigma=self.env.sigma(step.cpu()).to(device),
            task=tree.task[nodes].to(device),
            reference=None,
        )

    def _denoised(self, leaves: Leaves) -> Tensor:
        state = State(leaves.x, leaves.step, leaves.task)
        denoised = self.env.policy(state, stochastic=False).denoised
        if denoised is None:
            what = f"{type(self.env).__name__}'s policy says nothing about the finished sample"
            raise InputError(f"objective: a loss on leaves needs x̂₀, and {what}")
        return denoised


def _keys(tree: Tree, nodes: Tensor) -> noise.Keys:
    return tree.key[nodes].numpy().view(np.uint64)
