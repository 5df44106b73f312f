"""The backbone that is checked, at its smallest: a few rows, a few steps, prompts of different lengths."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl import registry
from treerl.backbone.contract import Backbone, Condition
from treerl.backbone.env import BackboneEnv, EnvSettings
from treerl.engine import noise
from treerl.engine.kernel import DDIM, FlowSDE
from treerl.engine.schedule import Flow
from treerl.engine.task import Task

PROMPTS = ("a cat", "a red bird above a snowy mountain, oil painting", "x")
STEPS, GUIDANCE, ROWS = 4, 3.5, 3
TOLERANCE = 1e-5  # relative, of float32 arithmetic in another order


@dataclass(frozen=True)
class Subject:
    """A backbone, and how to make another of the same."""

    make: Callable[[], Backbone]
    backbone: Backbone
    condition: Condition
    x: Tensor  # [ROWS, *shape]
    guidance: float

    def predict(self, backbone: Backbone | None = None, step: int = 1) -> Tensor:
        """The prediction for all rows at one step."""
        one = backbone or self.backbone
        time = one.schedule(STEPS).time[[step] * ROWS].to(one.device)
        return one.predict(self.x, time, self.condition, self.guidance)


def subject(make: Callable[[], Backbone], guidance: float = GUIDANCE) -> Subject:
    """What the checks look at."""
    backbone = make()
    condition = backbone.encode([Task(prompt) for prompt in PROMPTS])
    start = noise.normal(
        noise.children(noise.key(0), ROWS), backbone.shape, torch.float32, backbone.device
    )
    return Subject(make, backbone, condition, backbone.initial(start, condition), guidance)


def environment(subject: Subject, guidance: float | None = None) -> BackboneEnv:
    """The backbone as an environment."""
    flow = isinstance(subject.backbone.schedule(STEPS), Flow)
    settings = EnvSettings(
        steps=STEPS,
        guidance=subject.guidance if guidance is None else guidance,
        latent_dtype="float32",
        latent_device="device",
        rows=ROWS,
    )
    kernel = FlowSDE() if flow else DDIM()
    env: BackboneEnv = registry.load("envs", "denoising").make(subject.backbone, kernel, settings)
    return env.with_tasks([Task(prompt) for prompt in PROMPTS])


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where one of them is not finite."""
    if one.shape != other.shape or not bool(
        torch.isfinite(one).all() and torch.isfinite(other).all()
    ):
        return float("inf")
    return float((one - other.to(one)).abs().max() / other.abs().max().clamp(min=1e-12))
