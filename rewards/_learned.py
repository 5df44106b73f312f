"""What learned rewards share: where weights come from, where they run, pictures as the published code sees them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from treerl.backbone import hub
from treerl.errors import InputError, first_line
from treerl.reward.contract import Reward

SIDE = 224
MEAN, STD = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)  # of CLIP's training pictures

Prepare = Callable[[Image.Image], Image.Image]


@dataclass
class Learned(Reward):
    """A reward whose weights are read before anything else of a run."""

    title: ClassVar[str]

    model: str | None = None  # a folder, a file or a hub id; null is the published one
    revision: str | None = None
    device: str = "auto"  # the GPU when there is one
    dtype: str = "float32"
    batch: int = 32  # pictures in a forward

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype: expected float32, bfloat16 or float16, got {self.dtype}")
        if self.batch < 1:
            raise ValueError(f"batch: expected at least 1, got {self.batch}")
        self.where = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu")
            if self.device == "auto"
            else self.device
        )
        self.read()

    def read(self) -> None:
        """Loads the weights; `InputError` in one line when they are not there."""
        raise NotImplementedError

    def rate(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[M]` of pixels `[M, 3, 224, 224]`, ready for the network, and their prompts."""
        raise NotImplementedError

    def prepared(self, picture: Image.Image) -> Image.Image:
        """The picture at the network's size."""
        return cropped(picture)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[N]`, in batches."""
        parts = []
        with torch.no_grad():
            for low in range(0, len(images), self.batch):
                pixels = normalised(images[low : low + self.batch], self.prepared).to(
                    self.where, self.compute
                )
                parts.append(self.rate(pixels, prompts[low : low + self.batch]).float().cpu())
        return torch.cat(parts)

    @property
    def compute(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def placed(self, network: nn.Module) -> Any:
        """A network on the device, in the dtype, frozen."""
        return network.requires_grad_(False).eval().to(self.where, self.compute)

    def pretrained(self, cls: Any, source: str, what: str) -> Any:
        """A transformers model, tokenizer or configuration from a folder or a hub id."""
        named = f"reward {self.title}: its {what}"
        if not Path(source).is_dir():
            if source.startswith((".", "/", "~")) or source.count("/") != 1:
                raise InputError(
                    f"{named} {source!r}: expected a folder or a hub id such as owner/name"
                )
            hub.file(
                named,
                source,
                "config.json",
                self.revision,
                f"give a folder (scoring.options.{self.title}.model)",
            )
        try:
            return cls.from_pretrained(source, revision=self.revision)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise InputError(
                f"{named} cannot be read from {source!r}: {first_line(error)}"
            ) from error

    def weights(self, repository: str, name: str) -> dict[str, Tensor]:
        """The tensors of the published file, or of the file (or the folder with it) that `model` names."""
        named = f"reward {self.title}: its weights"
        path = Path(self.model) if self.model else None
        if path is not None and path.is_dir():
            path = path / name
        if path is None:
            other = f"give the file (scoring.options.{self.title}.model)"
            path = Path(hub.file(named, repository, name, self.revision, other))
        if not path.is_file():
            raise InputError(f"{named}: no such file: {path}")
        return tensors(path, named)


def tensors(path: Path, named: str) -> dict[str, Tensor]:
    """What a .safetensors file holds, or a .pt file of tensors alone; nothing else is ever unpickled."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(
            path, map_location="cpu", weights_only=True
        )  # the published file leaves no choice
    except Exception as error:
        raise InputError(f"{named} cannot be read from {path}: {first_line(error)}") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(
        isinstance(value, Tensor) for value in found.values()
    ):
        raise InputError(f"{named} cannot be read from {path}: expected tensors by name")
    return found


def fill(network: nn.Module, state: dict[str, Tensor], named: str) -> None:
    """Load every tensor of a network, none left over and none missing."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"{named} are of another model: {' '.join(str(error).split())[:300]}"
        ) from error


def normalised(images: Tensor, prepare: Prepare) -> Tensor:
    """Pixels `[N, 3, 224, 224]` as CLIP's networks want them; resized by Pillow, as the published code does it."""
    bytes_ = (
        (images.clamp(0, 1) * 255)
        .round()
        .to("cpu", torch.uint8)
        .permute(0, 2, 3, 1)
        .contiguous()
        .numpy()
    )
    pictures = [
        torch.frombuffer(bytearray(prepare(Image.fromarray(one)).tobytes()), dtype=torch.uint8)
        for one in bytes_
    ]
    pixels = torch.stack(pictures).view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (MEAN, STD))
    return (pixels - mean) / std


def cropped(picture: Image.Image) -> Image.Image:
    """The shorter side at 224, and the middle of the longer one (CLIP's own transform)."""
    width, height = picture.size
    scale = SIDE / min(width, height)
    # the longer side is cut, not rounded, as torchvision does
    size = (SIDE, int(height * scale)) if width <= height else (int(width * scale), SIDE)
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = ((side - SIDE) // 2 for side in size)
    return resized.crop((left, top, left + SIDE, top + SIDE))


def boxed(picture: Image.Image) -> Image.Image:
    """The longer side at 224, the rest black (HPSv2's own transform)."""
    width, height = picture.size
    scale = SIDE / max(width, height)
    size = round(width * scale), round(height * scale)
    box = Image.new("RGB", (SIDE, SIDE))
    box.paste(
        picture.resize(size, Image.Resampling.BICUBIC),
        ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2),
    )
    return box
