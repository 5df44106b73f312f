"""What happens when a reward fails: stop, ask again, or drop the tree of a bad sample; never an invented number."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from treerl.errors import RewardError
from treerl.reward.contract import Reward, checked, score

T = TypeVar("T")


@dataclass(frozen=True)
class Policy:
    """`on_bad` is stop, retry or drop_tree; a call that failed is repeated `retries` times with the last two."""

    on_bad: str = "stop"
    retries: int = 2

    def rate(self, name: str, reward: Reward, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[N]`; NaN marks a sample whose tree is to be dropped, and only with drop_tree."""
        times = 0 if self.on_bad == "stop" else self.retries
        if self.on_bad != "drop_tree":
            return _patiently(lambda: score(name, reward, images, prompts), times)
        try:
            return _patiently(lambda: _unfinished(name, reward, images, prompts), times)
        except RewardError:
            if len(images) == 1:
                return torch.full((1,), math.nan, dtype=torch.float64)
        # one of them breaks the call: asked one by one, the others keep their scores
        return torch.cat(
            [
                self.rate(name, reward, images[n : n + 1], [prompt])
                for n, prompt in enumerate(prompts)
            ]
        )


def _unfinished(name: str, reward: Reward, images: Tensor, prompts: Sequence[str]) -> Tensor:
    found = checked(name, reward, images, prompts)
    return torch.where(torch.isfinite(found), found, math.nan)


def _patiently(ask: Callable[[], T], times: int) -> T:
    for _ in range(times):
        try:
            return ask()
        except RewardError:
            continue
    return ask()
