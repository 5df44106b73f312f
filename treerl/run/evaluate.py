"""Held-out tasks, drawn by the full-step ODE from noise that stays the same before and after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from treerl.engine import noise
from treerl.engine.branching import ode
from treerl.engine.env import Env
from treerl.engine.grow import grow, make_roots
from treerl.engine.noise import Stream
from treerl.engine.task import Samples
from treerl.reward.rewards import Rewards
from treerl.run.quality import quality


@dataclass(frozen=True)
class Figures:
    """What held-out samples are worth."""

    scores: Tensor  # [M, K] of the rewards that are trained on
    total: Tensor  # [M] their weighted sum
    measures: dict[str, Tensor]  # each [M], further figures of the rewards
    watched: dict[str, Tensor]  # each [M], scores of the rewards that are only watched
    quality: dict[str, float]

    def summary(self) -> dict[str, Any]:
        """The means, as the manifest keeps them."""
        return {
            "reward": _mean(self.total),
            "measures": {name: _mean(value) for name, value in self.measures.items()},
            "watched": {name: _mean(value) for name, value in self.watched.items()},
            "quality": self.quality,
            "samples": len(self.total),
        }


@dataclass(frozen=True)
class Evaluation(Figures):
    """What was drawn and what it is worth."""

    samples: Samples  # [M]


def evaluate(
    env: Env,
    rewards: Rewards,
    tasks: Sequence[Any],
    samples_per_task: int = 1,
    watched: Rewards | None = None,
    seed: int = 0,
    rows: int = 24,
    check_interrupt: Callable[[], None] = lambda: None,
) -> Evaluation:
    """`samples_per_task` samples of each; noise is a function of (seed, task's place, sample)."""
    env = env.with_tasks(tasks)
    keys = [noise.key(seed, Stream.EVALUATION, row) for row in range(len(tasks))]
    roots = make_roots(keys, samples_per_task)
    tree = grow(env, roots, ode(env.steps), rows, check_interrupt)
    samples = env.samples(tree.at(tree.leaves))
    scores = rewards(samples)
    return Evaluation(
        samples=samples,
        scores=scores,
        total=rewards.total(scores),
        measures=rewards.measures(samples),
        watched=_by_name(watched, samples),
        quality=quality(samples.images, samples.group),
    )


def _by_name(watched: Rewards | None, samples: Samples) -> dict[str, Tensor]:
    if watched is None:
        return {}
    return dict(zip(watched.names, watched(samples).unbind(1), strict=True))


def _mean(value: Tensor) -> float:
    """The mean of what could be scored or measured; NaN marks a sample that could not."""
    return float(torch.nanmean(value.double()))
