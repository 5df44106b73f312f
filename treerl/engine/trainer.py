"""One step of training: grow a forest, score it, back up the scores, update the policy on edges."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from treerl.engine import noise, snapshot
from treerl.engine.advantage import Advantages, advantages
from treerl.engine.algorithm import Algorithm
from treerl.engine.env import Env
from treerl.engine.fitting import fitting
from treerl.engine.gradients import sum_gradients
from treerl.engine.grow import grow
from treerl.engine.learning_rate import set_learning_rate
from treerl.engine.losses import EdgeLosses, LeafLosses, Losses
from treerl.engine.metrics import Update, rollout_metrics, update_metrics
from treerl.engine.minibatch import Minibatch
from treerl.engine.noise import Stream
from treerl.engine.normaliser import added
from treerl.engine.objective import EdgeObjective, Loss
from treerl.engine.parts import whole
from treerl.engine.peers import Alone, Peers
from treerl.engine.roots import make_roots
from treerl.engine.scorer import Scorer
from treerl.engine.scoring import score
from treerl.engine.snapshot import Snapshot
from treerl.engine.step import Step
from treerl.engine.tree import Tree
from treerl.engine.weight_sets import Average, WeightSet, chosen, sampling
from treerl.errors import NumericsError


def _nothing() -> None:
    return


@dataclass
class Trainer:
    """Trains whatever the optimizer holds, with one algorithm on one environment.

    A run in four lines, with any `Scorer` for rewards:

        trainer = treerl.Trainer(env, rewards, treerl.recipes["treegrpo"], optimizer)
        for _ in range(100):
            step = trainer.iterate(tasks)
            print(step.metrics["reward"])
    """

    env: Env
    rewards: Scorer
    algorithm: Algorithm
    optimizer: torch.optim.Optimizer
    micro_batch_size: int = 24  # states in every forward
    seed: int = 0
    max_grad_norm: float = 1.0
    weight_sets: Mapping[str, WeightSet] = field(default_factory=dict)  # that objectives ask for
    check_interrupt: Callable[[], None] = _nothing  # called where stopping is clean; may raise
    iteration: int = 0  # of the next call
    iterations: int | None = None  # planned in all; a learning rate that decays needs them
    halfway: bool = False  # whether an iteration was left after its first optimizer step
    peers: Peers = field(default_factory=Alone)  # processes that grow the forest together
    average: Average | None = field(init=False)  # of the weights, if one is kept

    def __post_init__(self) -> None:
        self.average = Average.of(self.algorithm, snapshot.named_parameters(self.optimizer))

    def averaged(self) -> AbstractContextManager[Any]:
        """The network as it is to be judged and kept: by the average, if there is one."""
        return nullcontext() if self.average is None else self.average.applied()

    def iterate(self, tasks: Sequence[Any], keys: Sequence[noise.Keys] | None = None) -> Step:
        """One iteration over these tasks; `keys`, one `[1]` a task, name the noise of its trees."""
        set_learning_rate(self.optimizer, self.algorithm.decay, self.iteration, self.iterations)
        env = self.env.with_tasks(tasks)
        old = sampling(self.algorithm, self.average, self.optimizer)
        with self.averaged() if self.algorithm.rollout == "ema" else nullcontext():
            tree = self._rollout(env, self._keys(len(tasks)) if keys is None else keys)
        tree, every, dropped = score(env, tree, self.rewards, self.peers)
        credit = self._credit(env, tree, every)
        scores = every[:, 0]  # of the samples as the tree has them
        metrics = rollout_metrics(tree, scores[tree.leaves], self.rewards, credit, self.algorithm)
        metrics["dropped_trees"] = dropped
        self.peers.phase("update")
        losses = self._losses(env, tree, credit.advantage, old)
        generator = noise.generator(self.seed, Stream.SHUFFLE, self.iteration)
        trained = losses.trained(generator)
        metrics |= self._update(losses, losses.batches(trained, generator))
        metrics["rows"] = self.micro_batch_size  # fewer from where memory was short
        step = Step(self.iteration, env, tree, scores, credit, trained, metrics)
        for component in self.algorithm.components().values():
            component.observe(step)
        if self.average is not None:
            self.average.update(self.iteration)
        self.iteration += 1
        self.halfway = False
        return step

    def state(self) -> Snapshot:
        """All that training has changed, tensors by name; `restore` makes the next step the same.

        Noise, trees and the order of minibatches follow from the seed and the iteration.
        """
        tensors = snapshot.take(self.optimizer, self.algorithm.components())
        average = {} if self.average is None else self.average.state()
        return {"iteration": torch.tensor(self.iteration), **tensors, **average}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave; `ValueError` when another model or algorithm was trained."""
        if "iteration" not in state:
            raise ValueError("expected the state of a trainer, got one without an iteration")
        snapshot.put_back(state, self.optimizer, self.algorithm.components())
        if self.average is not None:
            self.average.restore(state)
        self.iteration = int(state["iteration"])
        self.halfway = False

    def _keys(self, count: int) -> list[noise.Keys]:
        path = (self.seed, Stream.ROLLOUT, self.iteration, 0)
        return np.split(noise.children(noise.key(*path), count), count)

    def _rollout(self, env: Env, keys: Sequence[noise.Keys]) -> Tree:
        algorithm = self.algorithm
        trees = algorithm.trees_per_prompt
        uniform = noise.generator(self.seed, Stream.SHAPE, self.iteration).random()
        forest = algorithm.trees.forest(env.steps, self.iteration, uniform, env.tasks, trees)
        counts = [len(specs) for specs in forest]
        roots = make_roots(keys, counts, algorithm.shared_noise)
        share = self._share(counts)
        every = list(chain.from_iterable(forest))
        self.peers.phase("rollout")
        grown = partial(
            grow,
            env,
            roots.part(share),
            every[share.start : share.stop] or every[0],
            check_interrupt=self.check_interrupt,
            previews=algorithm.previews,
            peers=self.peers,
            coupling=algorithm.coupling,
        )
        return fitting(self, "rollout", lambda: grown(rows=self.micro_batch_size))

    def _share(self, counts: Sequence[int]) -> range:
        """The roots that this process grows, of so many for each prompt.

        Whole prompts, as a reward may compare the samples of one, unless some process would idle.
        """
        if len(counts) < self.peers.size:
            return self.peers.share(sum(counts))
        share = self.peers.share(len(counts))
        return range(sum(counts[: share.start]), sum(counts[: share.stop]))

    @torch.no_grad()
    def _credit(self, env: Env, tree: Tree, every: Tensor) -> Advantages:
        """Of scores `[N, G, K]`: each walk of the tails is normalised by itself, then added."""
        algorithm = self.algorithm
        weights = self.rewards.weights
        walks = [algorithm.normaliser(tree, scores, weights) for scores in every.unbind(1)]
        return advantages(
            tree,
            added(walks),
            algorithm.weighting,
            algorithm.baseline,
            env.tasks,
            self.iteration,
            algorithm.normalise,
            algorithm.advantage_clip,
        )

    def _losses(self, env: Env, tree: Tree, advantage: Tensor, old: WeightSet) -> Losses:
        algorithm = self.algorithm
        on_edges = isinstance(algorithm.objective, EdgeObjective)
        kind = EdgeLosses if on_edges else LeafLosses
        known = {"old": old, **self.weight_sets}
        if self.average is not None:
            known["ema"] = self.average.applied
        weights = partial(chosen, known, algorithm)
        return kind(env, tree, advantage, algorithm, self.micro_batch_size, weights)

    def _update(self, losses: Losses, steps: Sequence[list[Minibatch]]) -> dict[str, Any]:
        """Move the policy, and tell what that did; no gradient is left over."""
        update: Update = []
        norms = []
        for batches in steps:
            # once the first step is taken, the iteration is finished: half of one is nobody's
            check = self.check_interrupt if not update else _nothing
            if self.peers.size > 1:  # their numbers of batches differ
                check()
                check = _nothing
            most = self.peers.forwards(len(batches))
            update.append(fitting(self, "update", partial(self._backward, losses, batches, check)))
            with self.peers.idle():
                for _ in range(len(batches), most):
                    losses.idle().backward()  # type: ignore[no-untyped-call]
            norms.append(self._optimizer_step())
        self.optimizer.zero_grad(set_to_none=True)
        return update_metrics(update, norms, self.peers, self.algorithm.objective)

    def _backward(
        self, losses: Losses, batches: list[Minibatch], check: Callable[[], None]
    ) -> list[tuple[Minibatch, Loss]]:
        """The gradient of an optimizer step, anew, in minibatches of no more than so many rows."""
        self.optimizer.zero_grad(set_to_none=True)
        while any(len(batch.parents) > self.micro_batch_size for batch in batches):
            batches = [half for batch in batches for half in batch.halves()]
        return [(batch, self._add_gradient(losses, batch, check)) for batch in batches]

    def _add_gradient(self, losses: Losses, batch: Minibatch, check: Callable[[], None]) -> Loss:
        check()
        loss = losses.loss(batch)
        expected = (len(batch.children),)
        if tuple(loss.value.shape) != expected:
            name = type(self.algorithm.objective).__name__
            got = tuple(loss.value.shape)
            raise NumericsError(f"objective {name}: expected losses of shape {expected}, got {got}")
        (loss.value * batch.weight.to(loss.value)).sum().backward()  # type: ignore[no-untyped-call]
        return Loss(loss.value.detach(), loss.ratio, loss.clipped)

    def _optimizer_step(self) -> float:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        sum_gradients(parameters, self.peers)
        norm = whole(nn.utils.clip_grad_norm_(parameters, self.max_grad_norm))
        if self.peers.agree(int(not bool(torch.isfinite(norm)))):
            where = f"update: iteration {self.iteration + 1}"
            raise NumericsError(f"{where}: the gradient is not finite; nothing moved")
        self.halfway = True
        self.optimizer.step()
        return float(norm)
