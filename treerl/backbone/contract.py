"""What a backbone is: a diffusion or flow model behind a few small methods."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from treerl.backbone import weights
from treerl.backbone.settings import BackboneSettings
from treerl.engine.peers import Alone, Peers
from treerl.engine.schedule import Schedule
from treerl.engine.task import Modality, Task
from treerl.errors import InputError

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
    """Encoded tasks: tensors whose first dimension is the task, so that branching repeats rows.

    What guidance needs of the negative prompt stands beside it, under the same name after
    `negative_`. Of `text`, `negative_text` and `image`, each `[P, ...]`, `for_cfg` makes

        text   [2 P, ...]   the rows of negative_text, then those of text
        image  [2 P, ...]   the rows of image twice, for it has no negative
    """

    tensors: Mapping[str, Tensor]  # each [P, ...]

    def take(self, index: Tensor) -> "Condition":
        """The rows `index`."""
        return Condition({name: tensor[index] for name, tensor in self.tensors.items()})

    def to(self, device: torch.device | str) -> "Condition":
        """The same on another device."""
        return Condition({name: tensor.to(device) for name, tensor in self.tensors.items()})

    def for_cfg(self) -> "Condition":
        """Negative and positive rows `[2 P]`, the negative ones first, for one batched forward."""
        both = {}
        for name, tensor in self.tensors.items():
            if not name.startswith(_NEGATIVE):
                negative = self.tensors.get(_NEGATIVE + name, tensor)
                both[name] = torch.cat([negative, tensor])
        return Condition(both)

    @classmethod
    def of(cls, cond: Mapping[str, Tensor], uncond: Mapping[str, Tensor]) -> "Condition":
        """Both halves of guidance, each `[P, ...]`; the second is empty where nothing is guided."""
        return cls({**cond, **{_NEGATIVE + name: tensor for name, tensor in uncond.items()}})

    @classmethod
    def cat(cls, parts: Sequence["Condition"]) -> "Condition":
        """The rows of all parts."""
        return cls({name: torch.cat([part[name] for part in parts]) for name in parts[0].tensors})

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


@dataclass(frozen=True)
class Footprint:
    """What a plan needs to know of a model that is not loaded; None is not known before loading."""

    latent_shape: tuple[int, ...] | None = None
    model_bytes: int | None = None
    rows_per_latent: int = 1  # network rows of a guided prediction of one latent


@dataclass(frozen=True)
class Start:
    """Where training started, kept by `treerl.backbone.lora.attach` for `reference`."""

    parameters: tuple[nn.Parameter, ...]  # that train
    copies: tuple[Tensor, ...] | None  # of their values, where they were wanted
    bare: bool  # a fresh LoRA: without it the model is what it was
    teacher: tuple[Tensor, ...] | None = None  # values of another run, where they are wanted


class Backbone(ABC):
    """A model family; a plug-in subclasses it in one file and is made by `load`.

    Most subclass `treerl.backbone.pipeline.PipelineBackbone`, which has all that families of
    diffusers pipelines share. A model of plain torch modules implements the abstract methods; what
    was trained is then saved, restored and exported by the defaults below.
    """

    title: ClassVar[str]  # for people
    modality: ClassVar[Modality] = "images"
    lora_targets: ClassVar[tuple[str, ...]] = ATTENTION  # ends of names of layers that LoRA adapts
    Settings: ClassVar[type[BackboneSettings]] = BackboneSettings  # the plug-in's parameters
    start: Start | None = None
    # that take part in every forward: `peers.forwards(0 or 1)` says whether a network is wanted
    peers: Peers = Alone()
    # held open by forwards that ask for no density: weights in a faster form, by `lora.attach`
    faster: Callable[[], AbstractContextManager[None]] = nullcontext
    sample_bytes: int = 0  # of one decoded sample; 0 is few, so that all are decoded at once
    compiled: bool = False  # its blocks: with gradients they are another graph than without

    @classmethod
    def check_class(cls) -> None:
        """`InputError` when the class itself is not whole; asked when the plug-in is loaded."""
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise InputError(f"backbone {cls.__name__}: it has no {', '.join(missing)}")
        require_text(cls, "title")
        if cls.modality not in ("images", "videos"):
            raise InputError(
                f"backbone {cls.__name__}: modality: expected images or videos, "
                f"got {cls.modality!r}"
            )
        names = cls.lora_targets
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
            raise InputError(
                f"backbone {cls.__name__}: lora_targets: expected a tuple of names, got {names!r}"
            )
        kind = cls.Settings
        if not (is_dataclass(kind) and issubclass(kind, BackboneSettings)):
            raise InputError(
                f"backbone {cls.__name__}: Settings: expected a dataclass that extends "
                f"treerl.backbone.settings.BackboneSettings, got {kind!r}"
            )

    @classmethod
    def check_available(cls, settings: Any) -> None:
        """`InputError` when the model is not to be had; asked before anything is loaded."""
        return

    @classmethod
    def footprint(cls, settings: Any) -> Footprint:
        """What a plan says of the model that the settings name, without loading it."""
        return Footprint()

    @classmethod
    @abstractmethod
    def load(cls, settings: Any, device: torch.device) -> Self:
        """The model that the settings name, every module in eval mode."""

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
    def denoisers(self) -> Mapping[str, nn.Module]:
        """The modules that train, by name; all but a few families have one."""

    def move(self, device: torch.device) -> None:
        """Go from the CPU to where it runs; asked once the denoisers are there, cut into parts."""
        if device != self.device:
            raise InputError(
                f"parallel.shard: expected false, as backbone {type(self).__name__} has no move(), "
                "got true"
            )

    @property
    def random_weights(self) -> bool:
        """Whether it is nobody's model, so that what is trained on it is kept nowhere."""
        return False

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        """`InputError` when a task cannot be encoded; asked of all before the first is."""
        return

    def encoding(self) -> AbstractContextManager[None]:
        """Held open while several tasks are encoded, where the encoders wait elsewhere."""
        return nullcontext()

    @abstractmethod
    def encode(self, tasks: Sequence[Task]) -> Condition:
        """The tasks `[P]`, with whatever guidance needs; equal shapes whatever the task."""

    @abstractmethod
    def schedule(self, steps: int) -> Schedule:
        """The noise levels of the family's own sampler with that many steps."""

    def initial(self, noise: Tensor, condition: Condition) -> Tensor:
        """Latents `[M, *shape]` at the first step, from standard normal draws of the same shape."""
        return noise

    @abstractmethod
    def predict(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        """What the schedule says is predicted, `[M, *shape]` in float32, guidance included.

        `time` is `[M]`, row by row, in the network's own unit.
        """

    @abstractmethod
    def decode(self, x: Tensor, condition: Condition) -> Tensor:
        """Images `[M, 3, H, W]` or videos `[M, F, 3, H, W]` in [0, 1], float32, of latents."""

    def save(self, folder: Path) -> None:
        """Write what was trained into a folder; `StorageError` when it cannot be written."""
        weights.save(self.denoisers, folder)

    def restore(self, folder: Path) -> None:
        """Load what `save` wrote; `InputError` when it is not all of it, or another model's."""
        weights.restore(self.denoisers, folder)

    def describe(self) -> dict[str, Any]:
        """Plain facts for a manifest, a model card and `treerl plan`."""
        return {
            "title": self.title,
            "modality": self.modality,
            "latent_shape": list(self.shape),
            "weights": {
                name: sum(parameter.numel() for parameter in module.parameters())
                for name, module in self.denoisers.items()
            },
        }

    def check_exportable(self) -> None:
        """`InputError` when `export` cannot work, asked before anything is written or drawn."""
        return

    def export(self, folder: Path) -> None:
        """Write what others load: the weights, and a JSON file that describes them."""
        weights.export(self.denoisers, self.describe(), folder)


def require_text(cls: type, name: str) -> None:
    """`InputError` when a class has no attribute `name` that is a text."""
    value = getattr(cls, name, None)
    if not isinstance(value, str) or not value:
        raise InputError(
            f"backbone {cls.__name__}: {name}: expected a class attribute that is a text, "
            f"got {'none' if value is None else repr(value)}"
        )
