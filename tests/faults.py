# mypy: disable-error-code="no-any-return,misc"
"""Shipped families with one fault each, as strangers make them; the kit must find every one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from training_faults import (
    SD35,
    WAN,
    Crowded,
    Detached,
    Dropping,
    Forgetful,
    HalfDetached,
    NoGrad,
    Untargeted,
)

from treerl.backbone.contract import Condition
from treerl.engine.schedule import Flow
from treerl.engine.task import Task


class Unclamped(SD35):
    def decode(self, x: Tensor, condition: Condition) -> Tensor:
        return super().decode(x, condition) * 3 - 1


class Swapped(SD35):  # height and width
    @property
    def shape(self) -> tuple[int, ...]:
        channels, rows, columns = super().shape
        return channels, columns, rows


class Shortened(WAN):  # by a frame
    def decode(self, x: Tensor, condition: Condition) -> Tensor:
        return super().decode(x, condition)[:, 1:]


class Sized(SD35):
    @property
    def default_size(self) -> tuple[int, int, int]:
        return 64, 1024, 1


class Neighbours(SD35):
    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        encoded = super().encode_prompts(prompts)
        return {name: tensor + tensor.mean(0) for name, tensor in encoded.items()}


class FirstText(SD35):  # the text of row 0 for all
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        first = torch.zeros(len(x), dtype=torch.int64)
        return super().network(x, time, condition.take(first), guidance)


class NoText(SD35):
    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        return super().encode_prompts(["" for _ in prompts])


class ZeroNegative(SD35):
    def uncond(self, tasks: Sequence[Task]) -> Mapping[str, Tensor]:
        encoded = super().uncond(tasks)
        return {name: torch.zeros_like(tensor) for name, tensor in encoded.items()}


class Timeless(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(x, torch.full_like(time, 500), condition, guidance)


class Unguided(SD35):
    def combine(self, uncond: Tensor, cond: Tensor, guidance: float) -> Tensor:
        return cond


class Bursting(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        early = (time >= 700).view(-1, 1, 1, 1)
        return super().network(x, time, condition, guidance) / early


class Counting(SD35):
    calls = 0

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        self.calls += 1
        return super().network(x, time, condition, guidance) + 1e-6 * self.calls


class InPlace(SD35):  # it writes to the latents of its caller
    def predict(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().predict(x.mul_(0.9), time, condition, guidance)


class Batched(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(x - 0.1 * x.mean(0), time, condition, guidance)


class OneTime(SD35):  # averaged over the batch
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(x, time.mean().expand(len(x)), condition, guidance)


class Drawing(SD35):
    def decode(self, x: Tensor, condition: Condition) -> Tensor:
        torch.rand(1)
        return super().decode(x, condition)


class Shift(SD35):  # consistently wrong levels: the pipeline's call takes the same
    def configure_scheduler(self) -> None:
        config = self.pipeline.scheduler.config
        self.pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(config, shift=1.0)


class OwnShift(Shift):
    own_levels = True


class EulerLevels(WAN):
    def configure_scheduler(self) -> None:
        self.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)


class SecondOrder(WAN):  # its multistep solver is kept
    def configure_scheduler(self) -> None:
        return


class LateLevels(SD35):
    def schedule(self, steps: int) -> Flow:
        right = super().schedule(steps)
        return Flow(time=right.time, sigma=right.sigma.square())


class TimeUnit(SD35):
    def schedule(self, steps: int) -> Flow:
        right = super().schedule(steps)
        return Flow(time=right.time / 1000, sigma=right.sigma)


class NextTime(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(x, time + 10, condition, guidance)


class Backwards(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return -super().network(x, time, condition, guidance)


class Formula(SD35):
    def combine(self, uncond: Tensor, cond: Tensor, guidance: float) -> Tensor:
        return cond + guidance * (cond - uncond)


class Halves(SD35):  # exchanged
    def combine(self, uncond: Tensor, cond: Tensor, guidance: float) -> Tensor:
        return super().combine(cond, uncond, guidance)


class Template(SD35):
    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        return super().encode_prompts([f"an image of {prompt}" for prompt in prompts])


class Unscaled(SD35):
    def vae_decode(self, x: Tensor) -> Tensor:
        return super().vae_decode(x * self.pipeline.vae.config.scaling_factor)


class Flipped(SD35):
    def vae_decode(self, x: Tensor) -> Tensor:
        return super().vae_decode(x).flip(1)


class Unloadable(SD35):
    def configure_scheduler(self) -> None:
        raise RuntimeError("out of order")


class Unencodable(SD35):
    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        raise RuntimeError("out of order")


class Unscheduled(SD35):
    def schedule(self, steps: int) -> Any:
        return super().schedule(steps + 1)


class Unpredictable(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        raise RuntimeError("out of order")


# a fault, the check that finds it, and what it says
FAULTS: list[tuple[type[Any], str, str]] = [
    (Unloadable, "loads", "out of order"),
    (Unencodable, "encodes", "out of order"),
    (Unscheduled, "schedules", "Flow of 5 steps for 4"),
    (Unpredictable, "predicts", "out of order"),
    (Unclamped, "samples", "from"),
    (Swapped, "samples", "(3, 3, 32, 48) torch.float32, expected (3, 3, 48, 32)"),
    (Shortened, "samples", "expected (3, 5, 3, 32, 32)"),
    (Bursting, "finite", "not finite at steps"),
    (Neighbours, "texts alone", "relative difference"),
    (Counting, "repeats", "difference"),
    (InPlace, "repeats", "difference"),
    (Batched, "rows alone", "relative difference"),
    (OneTime, "rows alone", "relative difference"),
    (Dropping, "evaluation mode", "difference"),
    (Drawing, "no hidden randomness", "the global generator was used"),
    (FirstText, "text", "blind to text"),
    (NoText, "text", "blind to text"),
    (ZeroNegative, "negative prompt", "blind to the negative prompt"),
    (Timeless, "time", "blind to time"),
    (Unguided, "guidance", "blind to guidance"),
    (Sized, "default size", "64x1024, the pipeline's is 64x64"),
    (Shift, "levels", "where the shipped scheduler has [1.000"),
    (EulerLevels, "levels", "where the shipped scheduler has"),
    (SecondOrder, "parity", ": schedule ("),
    (LateLevels, "parity", ": schedule ("),
    (TimeUnit, "parity", ": text, time or network"),
    (NextTime, "parity", ": text, time or network"),
    (Template, "parity", ": text, time or network"),
    (Backwards, "parity", ": the sign"),
    (Formula, "parity", ": guidance ("),
    (Halves, "parity", ": guidance ("),
    (ZeroNegative, "parity", ": guidance ("),
    (Unscaled, "parity", ": decode ("),
    (Flipped, "parity", ": decode ("),
    (Crowded, "replay", "with other rows"),
    (Untargeted, "trainable", "no layer of SD3Transformer2DModel matches"),
    (Detached, "gradients", "without a gradient"),
    (NoGrad, "gradients", "does not require grad"),
    (HalfDetached, "slope", "measured slope"),
    (Forgetful, "saved", "difference"),
]
