"""A reward of pictures as a reward of videos: it looks at some frames of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from treerl.engine.task import Modality
from treerl.reward.contract import Reward


@dataclass(frozen=True)
class OverFrames(Reward):
    """Mean (or worst) score of `frames` evenly spaced frames, the first and the last among them."""

    reward: Reward
    frames: int
    worst: bool = False

    takes: ClassVar[Modality] = "videos"

    def __call__(self, videos: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[N]` of `[N, F, 3, H, W]`."""
        chosen = (
            torch.linspace(0, videos.shape[1] - 1, min(self.frames, videos.shape[1])).round().long()
        )
        pictures = videos[:, chosen]
        each = [prompt for prompt in prompts for _ in chosen]
        scores = self.reward(pictures.flatten(0, 1), each).view(len(videos), len(chosen))
        return scores.amin(1) if self.worst else scores.mean(1)

    def refuse(self, prompts: Sequence[str]) -> None:
        self.reward.refuse(prompts)
