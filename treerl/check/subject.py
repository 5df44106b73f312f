"""The backbone that is checked, at its smallest: a few rows, a few steps, a small LoRA."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from treerl import registry
from treerl.backbone.contract import Backbone, Condition
from treerl.backbone.env import BackboneEnv, EnvSettings
from treerl.backbone.lora import Trainable
from treerl.backbone.pipeline import PipelineBackbone
from treerl.check.finding import Skip
from treerl.engine import noise
from treerl.engine.kernel import DDIM, FlowSDE, Kernel
from treerl.engine.schedule import Flow, Schedule
from treerl.engine.task import Task

PROMPTS = ("a cat", "a red bird above a snowy mountain, oil painting", "x")
STEPS = 4
ROWS = 3
GUIDANCE = 3.5
TOLERANCE = 1e-5  # relative, of float32 arithmetic in another order
TASKS = tuple(Task(prompt) for prompt in PROMPTS)
SMALL = Trainable(rank=2, alpha=2)


@dataclass(frozen=True)
class Subject:
    """How to make a backbone, and what is asked of it; what it answers is asked for once."""

    make: Callable[[], Backbone]
    tasks: tuple[Task, ...] = TASKS  # [ROWS]
    trainable: Trainable = SMALL
    env: str = "denoising"
    guidance: float = GUIDANCE

    @cached_property
    def backbone(self) -> Backbone:
        """The model that nothing is changed on."""
        return self.make()

    @cached_property
    def condition(self) -> Condition:
        """The encoded tasks."""
        return self.backbone.encode(self.tasks)

    @cached_property
    def schedule(self) -> Schedule:
        """The noise levels of a few steps."""
        return self.backbone.schedule(STEPS)

    @cached_property
    def noise(self) -> Tensor:
        """Standard normal draws `[ROWS, *shape]`."""
        return self.draws(0)

    @cached_property
    def x(self) -> Tensor:
        """The first latents `[ROWS, *shape]`."""
        return self.backbone.initial(self.noise, self.condition)

    @cached_property
    def pipeline(self) -> PipelineBackbone:
        """The backbone as one of a pipeline, where there is an own call to compare with."""
        if not isinstance(self.backbone, PipelineBackbone):
            raise Skip("it is no PipelineBackbone, so there is no pipeline to compare with")
        return self.backbone

    def draws(self, number: int) -> Tensor:
        """Standard normal draws `[ROWS, *shape]` of that number."""
        keys = noise.children(noise.key(number), ROWS)
        return noise.normal(keys, self.backbone.shape, torch.float32, self.backbone.device)

    def predict(
        self,
        backbone: Backbone | None = None,
        step: int = 1,
        condition: Condition | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """The prediction for all rows at one step."""
        backbone = self.backbone if backbone is None else backbone
        time = self.schedule.time[[step] * ROWS].to(backbone.device)
        condition = self.condition if condition is None else condition
        strength = self.guidance if guidance is None else guidance
        return backbone.predict(self.x, time, condition, strength)


def environment(subject: Subject, guidance: float | None = None) -> BackboneEnv:
    """The backbone as an environment."""
    settings = EnvSettings(
        steps=STEPS,
        guidance=subject.guidance if guidance is None else guidance,
        latent_dtype="float32",
        latent_device="device",
        rows=ROWS,
    )
    kernel: Kernel = FlowSDE() if isinstance(subject.schedule, Flow) else DDIM()
    env: BackboneEnv = registry.load("envs", subject.env).make(subject.backbone, kernel, settings)
    return env.with_tasks(subject.tasks)


def apart(value: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where they do not compare."""
    if value.shape != other.shape:
        return float("inf")
    if not bool(torch.isfinite(value).all() and torch.isfinite(other).all()):
        return float("inf")
    if not value.numel():
        return 0.0
    scale = other.abs().max().clamp(min=1e-12)
    return float((value - other.to(value)).abs().max() / scale)
