"""What a backbone is: a diffusion or flow model behind a few small methods; everything else is somebody else's room."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from treerl.engine.schedule import Schedule

if TYPE_CHECKING:
    from treerl.config.schema import Backbone as Settings

Medium = Literal["pictures", "videos"]
ATTENTION = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
)
_NEGATIVE = "negative_"


@dataclass(frozen=True)
class Condition:
    """Encoded prompts: tensors whose first dimension is the prompt, so that branching repeats rows, not encoders.

    What guidance needs of the negative prompt stands beside it, under the same name after `negative_`.
    """

    tensors: Mapping[str, Tensor]  # each [P, ...]

    def take(self, index: Tensor) -> "Condition":
        """The rows `index`."""
        return Condition({name: tensor[index] for name, tensor in self.tensors.items()})

    def to(self, device: torch.device | str) -> "Condition":
        """The same on another device."""
        return Condition({name: tensor.to(device) for name, tensor in self.tensors.items()})

    def guided(self) -> "Condition":
        """Negative and positive rows `[2 P]`, the negative ones first, for one batched forward."""
        pairs = {
            name: self.tensors.get(_NEGATIVE + name)
            for name in self.tensors
            if not name.startswith(_NEGATIVE)
        }
        return Condition(
            {name: torch.cat([one, self[name]]) for name, one in pairs.items() if one is not None}
        )

    @classmethod
    def cat(cls, parts: Sequence["Condition"]) -> "Condition":
        """The rows of all parts."""
        return cls({name: torch.cat([part[name] for part in parts]) for name in parts[0].tensors})

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


class Backbone(ABC):
    """A model family; a plug-in subclasses it in one file and is made by `load`.

    Most subclass `treerl.backbone.pipeline.Pipelined`, which has all that families of diffusers pipelines share.
    """

    makes: ClassVar[Medium] = "pictures"
    lora_targets: ClassVar[tuple[str, ...]] = (
        ATTENTION  # names of the linear layers that a LoRA adapts
    )

    @classmethod
    def find(cls, settings: "Settings") -> None:
        """`InputError` when the model is not to be had; asked before anything is loaded."""
        return

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
    def denoisers(self) -> Mapping[str, nn.Module]:
        """The modules that train, by the name of their component in the pipeline; all but a few families have one."""

    def encoding(self) -> AbstractContextManager[None]:
        """Held open while several prompts are encoded, by a backbone whose text encoders wait elsewhere."""
        return nullcontext()

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The prompts `[P]` encoded, with whatever guidance needs beside them; equal shapes whatever the prompt."""

    @abstractmethod
    def schedule(self, steps: int) -> Schedule:
        """The noise levels of the family's own sampler with that many steps."""

    def initial(self, noise: Tensor) -> Tensor:
        """Latents `[M, *shape]` at the first step, from standard normal draws of the same shape."""
        return noise

    @abstractmethod
    def predict(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        """What the schedule says is predicted, `[M, *shape]` in float32, guidance included; `time` `[M]` row by row."""

    @abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """Pictures `[M, 3, H, W]` or videos `[M, F, 3, H, W]` in [0, 1], float32, of finished latents."""
