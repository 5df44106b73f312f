"""What a reward is: a score for each finished sample, and the checks that every score passes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from treerl.engine.task import Modality
from treerl.errors import RewardError, TreerlError
from treerl.reward.guard import guarded


class Reward(ABC):
    """Scores finished samples; a plug-in subclasses it and is constructed without arguments."""

    takes: ClassVar[Modality] = "images"  # [N, 3, H, W]; "videos" are [N, F, 3, H, W]

    @abstractmethod
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score samples in [0, 1], one prompt each; returns `[N]` floats, higher is better."""

    def refuse(self, prompts: Sequence[str]) -> None:
        """`InputError` naming the first of these prompts that cannot be scored; asked before anything is loaded."""
        return

    def measures(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Further figures worth watching in an evaluation, each `[N]` (none unless the reward has some)."""
        return {}


def score(name: str, reward: Reward, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """The reward's scores `[N]`, all finite; `RewardError` names what broke the contract."""
    value = checked(name, reward, images, prompts)
    for row, number in enumerate(value.tolist()):
        if not math.isfinite(number):
            raise RewardError(
                f"reward {name}: {number} for sample {row} of {len(prompts)} (prompt {prompts[row]!r})"
            )
    return value


def checked(name: str, reward: Reward, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """The reward's scores `[N]` in float64 on the CPU, which may be NaN; `RewardError` for what is no such tensor."""
    with guarded(name):
        try:
            value = reward(images, prompts)
        except TreerlError:
            raise  # it says what is wrong in its own words
        except (Exception, SystemExit) as error:
            raise RewardError(
                f"reward {name}: {type(error).__name__}: {error} (prompt {prompts[0]!r})"
            ) from error
    wanted = (len(prompts),)
    if not isinstance(value, Tensor):
        raise RewardError(
            f"reward {name}: expected a tensor of shape {wanted}, got {type(value).__name__}"
        )
    if tuple(value.shape) != wanted:
        raise RewardError(f"reward {name}: expected shape {wanted}, got {tuple(value.shape)}")
    if value.dtype == torch.bool or value.is_complex():
        raise RewardError(f"reward {name}: expected real numbers, got {value.dtype}")
    return value.detach().to("cpu", torch.float64)
