"""What a reward is: a score for each finished sample."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from treerl.engine.task import Modality, Samples, Task


class Reward(ABC):
    """Scores finished samples; plug-ins subclass it, and their fields are their parameters.

    class Blue(Reward):
        def __call__(self, samples: Samples) -> Tensor:
            return samples.images[:, 2].mean((1, 2)) - samples.images[:, :2].mean((1, 2, 3))
    """

    modality: Modality = "images"  # what it scores; write `modality = "videos"` for videos

    def load(self) -> None:
        """Reads weights and whatever else takes long; asked once, before the first call.

        What is wrong with its fields a reward says when it is made, and what is wrong with tasks in
        `validate_tasks`: `treerl plan` asks both, and loads nothing.
        """
        return

    @abstractmethod
    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`, real numbers, higher is better.

        `samples.images` are `[N, 3, H, W]` (or videos `[N, F, 3, H, W]`) in [0, 1];
        `samples.tasks` are what was asked for, `samples.prompts` their texts, and samples of one
        task share a number in `samples.group`.
        """

    def begin(self, samples: Samples) -> None:
        """Start to score these, for a reward that then waits for others; a call asks for the end.

        Of several rewards all are told before the first is called, so that servers work side by
        side. It may well be that no call follows.
        """
        return

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        """`InputError` names the first task that cannot be scored; it need not be loaded yet."""
        return

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        """Further figures of an evaluation by name, each `[N]`; NaN where there is none."""
        return {}

    def close(self) -> None:
        """Gives back what the reward holds: processes, connections, files."""
        return
