"""A forest that a recipe grew on a small network, the network moved since, and what was scored."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from oracle import Neural, schedule
from plain import roots
from torch import Tensor

from treerl.engine.advantage import advantages
from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import draw
from treerl.engine.grow import grow
from treerl.engine.losses import EdgeLosses, LeafLosses
from treerl.engine.normaliser import added
from treerl.engine.objective import LeafObjective, Leaves, Loss
from treerl.engine.tree import Tree

STEPS = 10
TASKS = ("a cat", "a dog")
WEIGHTS = torch.tensor([1.0, 0.25], dtype=torch.float64)


@dataclass(frozen=True)
class Recorded(LeafObjective):
    """A loss on leaves, and the leaves that it met."""

    objective: LeafObjective
    met: list[Leaves] = field(default_factory=list, compare=False)

    @property
    def weight_set(self) -> str | None:
        return self.objective.weight_set

    def __call__(self, denoised: Tensor, leaves: Leaves) -> Loss:
        self.met.append(leaves)
        return self.objective(denoised, leaves)


@dataclass(frozen=True)
class Case:
    """What a paper's formula is computed from."""

    tree: Tree
    now: Neural  # the network that is trained
    old: Neural  # as it was when the forest grew
    start: Neural  # as training started
    scores: Tensor  # [N, G, K] float64, NaN where a node was not scored; K of each walk
    trained: Tensor  # the nodes whose edges, or the leaves, that the update trains
    leaves: Leaves | None  # the noised leaves in the order of `trained`, of a loss on leaves

    @property
    def sigma(self) -> Tensor:
        """The noise levels `[T + 1]`."""
        return self.now.schedule.sigma


@dataclass(frozen=True)
class Computed:
    """What the engine makes of a case."""

    case: Case
    loss: Tensor
    clipped: float  # share of the edges


def computed(algorithm: Algorithm, move: float) -> Computed:
    """The recipe's loss in one optimizer step, the network moved by `move` since the rollout."""
    plain = replace(algorithm, optimizer_steps=1, ppo_epochs=1)
    if isinstance(plain.objective, LeafObjective):
        plain = replace(plain, objective=Recorded(plain.objective))
    env = Neural(plain.kernel, schedule(STEPS, 3), (2, 3), torch.float64, 8, torch.float64)
    env.tasks = TASKS
    spec = draw(plain.trees.distribution(STEPS, 0), 0.6)
    first = roots(len(TASKS), plain.trees_per_prompt, shared_noise=plain.shared_noise)
    tree = grow(env, first, spec, 16, previews=plain.previews, coupling=plain.coupling)
    old = copy.deepcopy(env)
    start = copy.deepcopy(env)
    _move(start, 0.1, 1.0)
    _move(env, move, 3.0)
    scores = scored(tree)
    normalised = added([plain.normaliser(tree, x, WEIGHTS) for x in scores.unbind(1)])
    credit = advantages(
        tree,
        normalised,
        plain.weighting,
        plain.baseline,
        TASKS,
        normalise=plain.normalise,
        clip=plain.advantage_clip,
    )
    others = {"start": start, "old": old, "ema": start}
    kind = LeafLosses if isinstance(plain.objective, LeafObjective) else EdgeLosses
    losses = kind(env, tree, credit.advantage, plain, 16, lambda name: _as(env, others[name]))
    generator = np.random.default_rng(0)
    (batches,) = losses.batches(losses.trained(generator), generator)
    parts = [(batch, losses.loss(batch)) for batch in batches]
    loss = torch.stack([(part.value * batch.weight).sum() for batch, part in parts]).sum()
    trained = torch.cat([batch.children for batch, _ in parts])
    clipped = torch.cat([part.clipped for _, part in parts])
    leaves = _joined(plain.objective.met) if isinstance(plain.objective, Recorded) else None
    case = Case(tree, env, old, start, scores, trained, leaves)
    return Computed(case, loss, float(clipped.double().mean()))


def scored(tree: Tree) -> Tensor:
    """Two rewards of unlike scale, of leaves by each walk and of what was previewed."""
    walks = torch.stack([_rewards(state.x) for state in tree.finished()], 1)
    scores = torch.full((len(tree), *walks.shape[1:]), torch.nan, dtype=torch.float64)
    scores[tree.leaves] = walks
    if tree.previewed is not None and tree.x0 is not None:
        scores[tree.previewed] = _rewards(tree.x0)[:, None]
    return scores


def _rewards(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return torch.stack([flat.sum(1), 7 - 3 * flat.square().sum(1)], 1)


def _move(env: Neural, size: float, pace: float) -> None:
    with torch.no_grad():
        for weight in env.network.parameters():
            wave = torch.sin(pace * torch.arange(weight.numel(), dtype=torch.float64) + 0.3)
            weight.add_(wave.view_as(weight), alpha=size)


@contextmanager
def _as(env: Neural, other: Neural) -> Iterator[None]:
    kept = env.network
    env.network = other.network
    yield
    env.network = kept


def _joined(met: list[Leaves]) -> Leaves:
    names = ("x0", "x", "eps", "advantage", "step", "sigma", "task")
    columns = {name: torch.cat([getattr(part, name) for part in met]) for name in names}
    return Leaves(reference=None, **columns)
