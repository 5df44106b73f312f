# mypy: disable-error-code="no-any-return,misc"
"""Shipped families that cannot be trained as they should, with one fault each."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from treerl import registry
from treerl.backbone import adapter
from treerl.backbone.contract import Condition

SD35: type[Any] = registry.load("backbones", "sd35")
WAN: type[Any] = registry.load("backbones", "wan")


class Dropping(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        velocity = super().network(x, time, condition, guidance)
        return velocity * 1.01 if self.pipeline.transformer.training else velocity


class Untargeted(SD35):
    lora_targets = ("nothing",)


class Detached(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(x, time, condition, guidance).detach().requires_grad_()


class NoGrad(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        with torch.no_grad():
            return super().network(x, time, condition, guidance)


class HalfDetached(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        velocity = super().network(x, time, condition, guidance)
        return (velocity + velocity.detach()) / 2


class Forgetful(SD35):
    def save(self, folder: Path) -> None:
        super().save(folder)
        tensors = load_file(folder / adapter.FILE)
        with safe_open(folder / adapter.FILE, framework="pt") as file:
            metadata = file.metadata()
        halves = {name: tensor / 2 for name, tensor in tensors.items()}
        save_file(halves, folder / adapter.FILE, metadata)


class Crowded(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(x, time, condition, guidance) + 0.1 * len(x)
