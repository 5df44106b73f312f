"""What gives samples their scores, as the engine knows it."""

from typing import Protocol

from torch import Tensor

from treerl.engine.task import Samples


class Scorer(Protocol):
    """What the trainer asks of rewards; `treerl.Rewards` is one."""

    @property
    def names(self) -> tuple[str, ...]:
        """The K rewards."""

    @property
    def weights(self) -> Tensor:
        """Their weights `[K]`, float64."""

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N, K]`, float64; NaN marks a sample whose tree is to be dropped."""
