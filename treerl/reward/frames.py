"""A reward of images as a reward of videos: it looks at some frames of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.reward.contract import Reward


@dataclass(frozen=True)
class OverFrames(Reward):
    """Mean (or worst) score of `frames` evenly spaced frames, the first and the last among them."""

    reward: Reward
    frames: int
    worst: bool = False

    modality = "videos"

    def load(self) -> None:
        self.reward.load()

    def __call__(self, samples: Samples) -> Tensor:
        return self._over(self.reward(self._frames(samples)), len(samples))

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        figures = self.reward.measures(self._frames(samples))
        return {name: self._over(column.double(), len(samples)) for name, column in figures.items()}

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        self.reward.validate_tasks(tasks)

    def close(self) -> None:
        self.reward.close()

    def _frames(self, samples: Samples) -> Samples:
        """Frames `[N * f, 3, H, W]` of videos `[N, F, 3, H, W]`, those of one video adjacent.

        Two videos of nine frames, looked at in three: row 0 is frame 0 of the first video,
        row 2 its frame 8, row 3 frame 0 of the second.
        """
        count = samples.images.shape[1]
        chosen = torch.linspace(0, count - 1, min(self.frames, count)).round().long()
        owner = torch.arange(len(samples)).repeat_interleave(len(chosen))
        tasks = tuple(samples.tasks[row] for row in owner.tolist())
        return Samples(samples.images[:, chosen].flatten(0, 1), tasks, samples.group[owner])

    def _over(self, column: Tensor, count: int) -> Tensor:
        """One number `[count]` a video, of those of its frames."""
        if column.dtype == torch.bool or column.is_complex():
            return column  # no scores: the checks of every call say so
        frames = column.view(count, -1)
        if not frames.is_floating_point():  # whole numbers have no mean of their own dtype
            frames = frames.double()
        return frames.amin(1) if self.worst else frames.mean(1)
