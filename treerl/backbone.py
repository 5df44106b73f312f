"""What a backbone is: a diffusion or flow model behind six small methods; everything else is somebody else's room."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from treerl.flow import Schedule

if TYPE_CHECKING:
    from treerl.config import Backbone as Settings


@dataclass(frozen=True)
class Condition:
    """Encoded prompts: tensors whose first dimension is the prompt, so that branching repeats rows, not encoders."""

    tensors: Mapping[str, Tensor]  # each [P, ...]

    def take(self, index: Tensor) -> "Condition":
        """The rows `index`."""
        return Condition({name: tensor[index] for name, tensor in self.tensors.items()})

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


class Backbone(ABC):
    """A model family; a plug-in subclasses it in one file and is made by `load`."""

    @classmethod
    @abstractmethod
    def load(cls, settings: "Settings", device: torch.device) -> "Backbone":
        """The model that `backbone.*` of the configuration names, every module in eval mode."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one latent, packed where the family packs."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    @abstractmethod
    def pipeline(self) -> Any:
        """The diffusers pipeline it stands on, which knows how to save what was trained."""

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """The denoiser: the module that trains."""

    @property
    @abstractmethod
    def lora_targets(self) -> tuple[str, ...]:
        """Names of the linear layers that a LoRA adapts."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The prompts `[P]` encoded, with whatever guidance needs beside them."""

    @abstractmethod
    def schedule(self, steps: int) -> Schedule:
        """The noise levels of the family's own sampler with that many steps."""

    @abstractmethod
    def initial(self, noise: Tensor) -> Tensor:
        """Latents `[M, *shape]` at the first step, from standard normal draws of the same shape."""

    @abstractmethod
    def predict(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        """The velocity `[M, *shape]` in float32, guidance included; `time` `[M]` is the schedule's, row by row."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """Pictures `[M, 3, H, W]` in [0, 1], float32, of finished latents."""
