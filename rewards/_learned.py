"""What learned rewards share: weights, devices, and images as the published code sees them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from treerl.backbone import hub
from treerl.engine.task import Samples
from treerl.errors import InputError, TreerlError, reason, shown
from treerl.reward.contract import Reward

from . import _weights  # noqa: TID251

SIDE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training images
STD = (0.26862954, 0.26130258, 0.27577711)

Prepare = Callable[[Image.Image], Image.Image]
N = TypeVar("N", bound=nn.Module)


@dataclass
class Learned(Reward):
    """A reward of trained weights."""

    title: ClassVar[str]

    model: str | None = None  # a folder, a file or a hub id; null is the published one
    revision: str | None = None
    device: str = "auto"  # the GPU when there is one
    dtype: str = "float32"
    batch: int = 32  # images in a forward

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype: expected float32, bfloat16 or float16, got {self.dtype}")
        if self.batch < 1:
            raise ValueError(f"batch: expected at least 1, got {self.batch}")
        if self.device != "auto":
            self._tried(lambda: torch.device(self.device))
        if self.model and not hub.is_id(self.model) and not Path(self.model).exists():
            text = f"model: no such file or folder: {shown(self.model)}"
            raise InputError(f"rewards.{self.title}.{text}")

    def load(self) -> None:
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        self.where = self._tried(lambda: torch.empty(0, device=name).device)
        try:
            self.read()
        except (TreerlError, ValueError):
            raise
        except Exception as error:  # of tensors that are not what their names say
            named = f"reward {self.title}: its weights"
            raise InputError(f"{named} are of another model: {reason(error)}") from error

    def _tried(self, device: Callable[[], torch.device]) -> torch.device:
        try:
            return device()
        except (RuntimeError, AssertionError) as error:
            text = f"device: {self.device} cannot be used: {reason(error)}"
            raise InputError(f"rewards.{self.title}.{text}") from error

    def read(self) -> None:
        """Loads the weights; `InputError` in one line when they are not there."""
        raise NotImplementedError

    def rate(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[M]` of pixels `[M, 3, 224, 224]`, ready for the network, and their prompts."""
        raise NotImplementedError

    def prepared(self, image: Image.Image) -> Image.Image:
        """The image at the network's size."""
        return cropped(image)

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]`, in batches."""
        parts = []
        prompts = samples.prompts
        with torch.no_grad():
            for start in range(0, len(samples), self.batch):
                end = start + self.batch
                pixels = normalised(samples.images[start:end], self.prepared)
                pixels = pixels.to(self.where, self.compute)
                parts.append(self.rate(pixels, prompts[start:end]).float().cpu())
        return torch.cat(parts)

    @property
    def compute(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def placed(self, network: nn.Module) -> Any:
        """A network on the device, in the dtype, frozen."""
        return network.requires_grad_(False).eval().to(self.where, self.compute)

    def filled(self, make: Callable[[], N], state: dict[str, Tensor]) -> N:
        """A network with exactly these tensors."""
        return _weights.fill(make, state, f"reward {self.title}: its weights")

    def pretrained(self, cls: Any, source: str, what: str) -> Any:
        """A transformers model, tokenizer or configuration from a folder or a hub id."""
        instead = f"give a folder (rewards.{self.title}.model)"
        named = f"reward {self.title}: its {what}"
        return _weights.pretrained(cls, source, named, self.revision, instead)

    def weights(self, repository: str, name: str) -> dict[str, Tensor]:
        """The tensors of the published file, or of that which `model` names, or its folder."""
        named = f"reward {self.title}: its weights"
        if self.model is None:
            instead = f"give the file (rewards.{self.title}.model)"
            path = Path(hub.file(named, repository, name, self.revision, instead))
        else:
            path = Path(self.model)
            if path.is_dir():
                path = path / name
        if not path.is_file():
            raise InputError(f"{named}: no such file: {path}")
        return _weights.tensors(path, named)


def normalised(images: Tensor, prepare: Prepare) -> Tensor:
    """Pixels `[N, 3, 224, 224]` as CLIP's networks want them.

    They are resized by Pillow, as the published code does it.
    """
    whole = (images.clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    rows = whole.permute(0, 2, 3, 1).contiguous().numpy()
    parts = []
    for row in rows:
        content = bytearray(prepare(Image.fromarray(row)).tobytes())
        parts.append(torch.frombuffer(content, dtype=torch.uint8))
    pixels = torch.stack(parts).view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    return (pixels - mean) / std


def cropped(image: Image.Image) -> Image.Image:
    """The shorter side at 224, and the middle of the longer one (CLIP's own transform)."""
    width, height = image.size
    scale = SIDE / min(width, height)
    # the longer side is cut, not rounded, as torchvision does
    if width <= height:
        size = (SIDE, int(height * scale))
    else:
        size = (int(width * scale), SIDE)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    left = (size[0] - SIDE) // 2
    top = (size[1] - SIDE) // 2
    return resized.crop((left, top, left + SIDE, top + SIDE))


def boxed(image: Image.Image) -> Image.Image:
    """The longer side at 224, the rest black (HPSv2's own transform)."""
    width, height = image.size
    scale = SIDE / max(width, height)
    size = (round(width * scale), round(height * scale))
    resized = image.resize(size, Image.Resampling.BICUBIC)
    box = Image.new("RGB", (SIDE, SIDE))
    box.paste(resized, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return box
