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
from treerl.reward.contract import Reward
from treerl.run.quality import quality
from treerl.run.watch import watched


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
            "reward": float(self.score.mean()),
            "measures": {
                name: float(value.double().mean()) for name, value in self.measures.items()
            },
            "watched": {name: float(value.double().mean()) for name, value in self.watched.items()},
            "quality": self.quality,
            "samples": len(self.prompts),
        }


def evaluate(
    env: PromptedEnv,
    prompts: Sequence[str],
    samples: int,
    weight: Tensor,
    seed: int,
    rows: int,
    poll: Callable[[], None] = lambda: None,
    watch: dict[str, Reward] | None = None,
) -> Evaluation:
    """`samples` pictures of each prompt; the noise is a function of (seed, prompt's place, sample)."""
    env = env.ask(prompts)
    keys = [noise.key(seed, Purpose.EVALUATION, row) for row in range(len(prompts))]
    tree = grow(env, plant(keys, samples), ode(env.steps), rows, poll)
    state = tree.at(tree.leaves)
    images = env.decode(state)
    texts = tuple(prompts[row] for row in state.prompt.tolist())
    measures = [reward.measures(images, texts) for reward in env.rewards.values()]
    return Evaluation(
        prompts=texts,
        images=images,
        score=env.score(images, state.prompt) @ weight,
        measures={name: value for one in measures for name, value in one.items()},
        watched=watched(watch or {}, images, texts),
        quality=quality(images, state.prompt.to("cpu", torch.int64)),
    )
