"""The least that each contract asks for: rewards, draws, roots and edges for the tests."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from treerl.engine import noise
from treerl.engine.branching import Branching, Distribution
from treerl.engine.env import Env
from treerl.engine.normaliser import Normaliser, Scores
from treerl.engine.objective import Edges
from treerl.engine.policy import Draws, Gaussian, KeyedDraws
from treerl.engine.roots import Roots, make_roots
from treerl.engine.scorer import Scorer
from treerl.engine.task import Samples
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec


@dataclass(frozen=True)
class PlainRewards(Scorer):
    """Functions of samples with weights: the least that a trainer accepts as rewards."""

    functions: Mapping[str, Callable[[Samples], Tensor]]
    weight: tuple[float, ...] = (1.0,)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.functions)

    @property
    def weights(self) -> Tensor:
        return torch.tensor(self.weight, dtype=torch.float64)

    def __call__(self, samples: Samples) -> Tensor:
        columns = [function(samples).double() for function in self.functions.values()]
        return torch.stack(columns, 1)


def total(samples: Samples) -> Tensor:
    """The reward x, summed over dimensions."""
    return samples.images.double().flatten(1).sum(1)


def leaf_totals(tree: Tree) -> Tensor:
    """The same of a tree's leaves `[L]`."""
    return tree.at(tree.leaves).x.double().flatten(1).sum(1)


SUM = PlainRewards({"sum": total})


@dataclass(frozen=True)
class Prescribed(Draws):
    """The numbers that a test chose in place of random draws."""

    numbers: Tensor  # [M, *shape]

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return self.numbers.to(dtype)

    def uniform(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return self.numbers.to(dtype)


def log_density(x: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
    """log N(x; mean, std²) of each dimension, by torch; `std` is a number or one for each row."""
    wide = std.view(-1, *(1,) * (x.dim() - 1)) if isinstance(std, Tensor) else std
    density: Tensor = torch.distributions.Normal(mean, wide).log_prob(x)  # type: ignore[no-untyped-call]
    return density


def roots(tasks: int, trees: int = 1, seed: int = 0, shared_noise: bool = False) -> Roots:
    """Roots with keys as the trainer makes them."""
    return make_roots([noise.key(seed, row) for row in range(tasks)], trees, shared_noise)


def many(count: int, first: int = 0) -> Roots:
    """`count` tasks of one tree each, made without a loop; their keys begin at `first`."""
    keys = np.arange(first, first + count, dtype=np.uint64)
    return Roots(torch.arange(count), keys, keys)


def edges(tree: Tree, nodes: Tensor, advantage: Tensor, reference: Gaussian | None = None) -> Edges:
    """What the objective reads about the edges into `nodes`."""
    step = tree.step[nodes] - 1
    return Edges(
        x=tree.at(nodes).x,
        log_prob=tree.log_prob[nodes],
        advantage=advantage[nodes],
        step=step,
        sigma=1 - step / tree.steps,
        delta=torch.full_like(step, 1 / tree.steps, dtype=torch.float64),
        task=tree.task[nodes],
        draws=KeyedDraws(tree.key[nodes].numpy().view(np.uint64)),
        reference=reference,
        coefficients=None,
    )


def plain_edges(
    x: Tensor, log_prob: Tensor, advantage: Tensor, reference: Gaussian | None = None
) -> Edges:
    """Edges `[E]` of no tree, all from step 0."""
    count = len(x)
    zeros = torch.zeros(count, dtype=torch.int64)
    draws = KeyedDraws(noise.children(noise.key(0), count))
    return Edges(
        x=x,
        log_prob=log_prob,
        advantage=advantage,
        step=zeros,
        sigma=torch.ones(count),
        delta=torch.ones(count),
        task=zeros,
        draws=draws,
        reference=reference,
        coefficients=None,
    )


def replay(env: Env, tree: Tree, nodes: Tensor) -> Gaussian:
    """The policy at the parents of `nodes`, one row for each of them."""
    policy = env.policy(tree.at(tree.parent[nodes]), stochastic=True)
    assert isinstance(policy, Gaussian)
    return policy


def path(tree: Tree, node: int) -> list[int]:
    """The nodes from the root to `node`."""
    nodes = [node]
    while int(tree.parent[nodes[-1]]) != Tree.NO_PARENT:
        nodes.append(int(tree.parent[nodes[-1]]))
    return nodes[::-1]


@dataclass(frozen=True)
class Absolute(Normaliser):
    """The weighted sum of the scores as it is: what a critic is compared with."""

    def __call__(self, tree: Tree, scores: Tensor, weights: Tensor) -> Scores:
        tasks = int(tree.task.max()) + 1
        return Scores(scores @ weights, torch.ones(tasks, dtype=torch.float64))


@dataclass(frozen=True)
class Always(Branching):
    """One tree for every iteration and task."""

    spec: TreeSpec

    def distribution(self, steps: int, iteration: int) -> Distribution:
        return ((1.0, self.spec),)


class Counted(torch.optim.SGD):
    """Plain gradient descent that counts its steps."""

    def __init__(self, parameters: list[Tensor], lr: float = 1.0) -> None:
        super().__init__(parameters, lr=lr)
        self.steps = 0

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.steps += 1
        super().step(closure)


def no_weights(name: str) -> AbstractContextManager[None]:
    """The weight sets of losses that ask for none."""
    raise AssertionError(name)
