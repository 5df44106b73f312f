"""Held-out prompts, drawn by the full-step ODE sampler from noise that stays the same before and after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from treerl.engine import noise
from treerl.engine.branching import ode
from treerl.engine.env import PromptedEnv
from treerl.engine.grow import grow, plant
from treerl.engine.noise import Purpose
from treerl.reward.rewards import Rewards
from treerl.run.quality import quality


@dataclass(frozen=True)
class Evaluation:
    """What was drawn and what it is worth."""

    prompts: tuple[str, ...]  # [M] of each picture
    images: Tensor  # [M, 3, H, W] in [0, 1]
    score: Tensor  # [M] weighted sum of the rewards
    measures: dict[str, Tensor]  # each [M], further figures of the rewards
    watched: dict[str, Tensor]  # each [M], scores of the rewards that are only watched
    quality: dict[str, float]

    def summary(self) -> dict[str, Any]:
        """The means, as the manifest keeps them."""
        return {
            "reward": mean(self.score),
            "measures": {name: mean(value) for name, value in self.measures.items()},
            "watched": {name: mean(value) for name, value in self.watched.items()},
            "quality": self.quality,
            "samples": len(self.prompts),
        }


def mean(values: Tensor) -> float | None:
    """The mean of the numbers that are there; None, as JSON has it, where there is none."""
    numbers = values[torch.isfinite(values)].double()
    return float(numbers.mean()) if len(numbers) else None


def evaluate(
    env: PromptedEnv,
    prompts: Sequence[str],
    samples: int,
    weight: Tensor,
    seed: int,
    rows: int,
    poll: Callable[[], None] = lambda: None,
    watch: Rewards | None = None,
) -> Evaluation:
    """`samples` pictures of each prompt; the noise is a function of (seed, prompt's place, sample)."""
    env = env.ask(prompts)
    keys = [noise.key(seed, Purpose.EVALUATION, row) for row in range(len(prompts))]
    tree = grow(env, plant(keys, samples), ode(env.steps), rows, poll)
    state = tree.at(tree.leaves)
    images = env.decode(state)
    texts = tuple(prompts[row] for row in state.prompt.tolist())
    samples_drawn = env.samples(images, state.prompt)
    return Evaluation(
        prompts=texts,
        images=images,
        score=env.rewards(samples_drawn) @ weight,
        measures=env.rewards.measures(samples_drawn),
        watched=dict(zip(watch.names, watch(samples_drawn).unbind(1), strict=True))
        if watch
        else {},
        quality=quality(images, state.prompt.to("cpu", torch.int64)),
    )
