"""A flow model of plain torch modules, no diffusers anywhere: two points from two words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from treerl.backbone.contract import Backbone, Condition
from treerl.backbone.settings import BackboneSettings
from treerl.engine.schedule import Flow
from treerl.engine.task import Task


class Net(nn.Module):
    """The velocity of 2-D points, from the point, the time and a word."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 2)
        self.twin = self.last  # tied, as the embeddings of language models are

    def forward(self, x: Tensor, time: Tensor, word: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(torch.cat([x, time[:, None], word], dim=1)))
        velocity: Tensor = self.last(torch.tanh(self.second(hidden)))
        return velocity


class Points(Backbone):
    """Points as images of 1x1."""

    title = "Points"
    lora_targets: ClassVar[tuple[str, ...]] = ("first", "second")

    @dataclass(frozen=True, kw_only=True)
    class Settings(BackboneSettings):
        """The size of the network."""

        hidden: int = 8

    def __init__(self, width: int, device: torch.device) -> None:
        torch.manual_seed(width)
        self.net = Net(width).to(device).requires_grad_(False).eval()
        self._device = device

    @classmethod
    def load(cls, settings: "Points.Settings", device: torch.device) -> "Points":
        return cls(settings.hidden, device)

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def denoisers(self) -> Mapping[str, nn.Module]:
        return {"net": self.net}

    def encode(self, tasks: Sequence[Task]) -> Condition:
        words = [[float(len(task.prompt) % 3 - 1)] for task in tasks]
        return Condition({"word": torch.tensor(words, device=self._device)})

    def schedule(self, steps: int) -> Flow:
        sigma = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return Flow(time=sigma[:-1].float(), sigma=sigma)

    def predict(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return self.net(x.float(), time, condition["word"])  # type: ignore[no-any-return]

    def decode(self, x: Tensor, condition: Condition) -> Tensor:
        grey = torch.sigmoid(x.float().mean(1))
        return grey.view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
