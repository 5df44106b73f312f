"""The denoising environment: a backbone walked by a kernel."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from treerl.backbone.contract import Backbone, Condition
from treerl.backbone.env import BackboneEnv, EnvSettings
from treerl.engine.chunks import chunks
from treerl.engine.env import Leap, Slope
from treerl.engine.kernel import ODE, Coefficients, Kernel, validate_stds
from treerl.engine.policy import Gaussian
from treerl.engine.schedule import Schedule
from treerl.engine.task import Samples, Task
from treerl.engine.tree import State
from treerl.errors import NumericsError

_ENCODED = (
    1024  # encoded tasks kept; each is encoded once, alone, so it never depends on neighbours
)


@dataclass(frozen=True)
class Denoising(BackboneEnv):
    """The Markov decision process of a backbone and a kernel."""

    leaps: ClassVar[bool] = True

    backbone: Backbone
    kernel: Kernel
    settings: EnvSettings
    schedule: Schedule
    tasks: tuple[Task, ...] = ()
    condition: Condition | None = None
    encoded: dict[Task, Condition] = field(
        default_factory=dict, repr=False
    )  # a cache of all copies

    @classmethod
    def make(cls, backbone: Backbone, kernel: Kernel, settings: EnvSettings) -> "Denoising":
        return cls(backbone, kernel, settings, backbone.schedule(settings.steps))

    def with_tasks(self, tasks: Sequence[Task | str]) -> "Denoising":
        rows = tuple(Task.of(task) for task in tasks)
        condition = _encode(self.backbone, self.encoded, rows).to(self.device)
        return replace(self, tasks=rows, condition=condition)

    def with_steps(self, steps: int) -> "Denoising":
        return replace(self, schedule=self.backbone.schedule(steps))

    @property
    def steps(self) -> int:
        return self.schedule.steps

    @property
    def shape(self) -> tuple[int, ...]:
        return self.backbone.shape

    @property
    def sample_bytes(self) -> int:
        return self.backbone.sample_bytes

    @property
    def latent_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.settings.latent_dtype)
        return dtype

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def latent_device(self) -> torch.device:
        return torch.device("cpu") if self.settings.latent_device == "cpu" else self.device

    def initial(self, task: Tensor, noise: Tensor) -> State:
        x = self.backbone.initial(noise, self._condition(task))
        return State(x, torch.zeros_like(task), task)

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        time = self.schedule.time[state.step.cpu()].to(self.device)
        x = state.x.to(self.device)
        condition = self._condition(state.task)
        # compiled, a forward without gradients is another graph than the update's, and rounds
        # differently: what is to be replayed is computed by the update's own
        with_gradient = torch.is_grad_enabled()
        with torch.set_grad_enabled(with_gradient or (stochastic and self.backbone.compiled)):
            prediction = self.backbone.predict(x, time, condition, self.settings.guidance)
        if not with_gradient:
            prediction = prediction.detach()
        coefficients = self.coefficients if stochastic else self._ode
        gaussian = coefficients.gaussian(x, prediction, state.step)
        return replace(gaussian, x0=self.schedule.denoised(x, prediction, state.step))

    def walking(self, stochastic: bool) -> AbstractContextManager[None]:
        return nullcontext() if stochastic else self.backbone.faster()

    def leap(self, state: State, stride: int, before: Slope | None) -> Leap:
        time = self.schedule.time[state.step.cpu()].to(self.device)
        x = state.x.to(self.device)
        condition = self._condition(state.task)
        prediction = self.backbone.predict(x, time, condition, self.settings.guidance)
        slope = self.schedule.slope(x, prediction, state.step)
        straight = slope
        if before is not None:
            share = self.schedule.lookback(state.step, stride, before.stride)
            straight = slope + share * (slope - before.value)
        x0 = self.schedule.denoised(x, prediction, state.step)
        return Leap(self.schedule.move(x, straight, state.step, stride), slope, x0)

    def samples(self, state: State) -> Samples:
        """Images `[M, 3, H, W]` or videos `[M, F, 3, H, W]` in [0, 1] on the CPU."""
        rows = state.task.tolist()
        tasks = tuple(self.tasks[row] for row in rows)
        images = self._decode(state, self.settings.rows)
        good = torch.isfinite(images).flatten(1).all(1)
        if not bool(good.all()):
            row = int((~good).nonzero()[0])
            prompt = tasks[row].prompt
            raise NumericsError(f"decode: sample {row} is not finite (prompt {prompt!r})")
        return Samples(images, tasks, state.task.to("cpu", torch.int64))

    def sigma(self, step: Tensor) -> Tensor:
        return self.schedule.noise[step.cpu()]

    def noised(self, x0: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return self.schedule.noised(x0, eps, step)

    def validate_stds(self, stochastic: tuple[bool, ...]) -> None:
        validate_stds(self.coefficients, self.schedule, stochastic)

    @property
    def step_coefficients(self) -> Coefficients:
        return self.coefficients

    @cached_property
    def coefficients(self) -> Coefficients:
        """Those of the kernel on the schedule."""
        return self.kernel.coefficients(self.schedule)

    @cached_property
    def _ode(self) -> Coefficients:
        return ODE().coefficients(self.schedule)

    def _condition(self, task: Tensor) -> Condition:
        if self.condition is None:
            raise ValueError("with_tasks() comes before the first state")
        return self.condition.take(task.to(self.device))

    def _decode(self, state: State, rows: int) -> Tensor:
        """Decoded in chunks, in halves and halves again where memory is short; none is left out."""
        parts = []
        try:
            with torch.no_grad():
                for index, real in chunks(len(state.x), rows):
                    chunk = state.take(index)
                    x = chunk.x.to(self.device)
                    parts.append(self.backbone.decode(x, self._condition(chunk.task))[:real].cpu())
            return torch.cat(parts)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        return self._decode(state, rows // 2)


def _encode(backbone: Backbone, encoded: dict[Task, Condition], tasks: Sequence[Task]) -> Condition:
    wanted = dict.fromkeys(tasks)
    missing = [task for task in wanted if task not in encoded]
    others = [task for task in encoded if task not in wanted]  # oldest first
    for task in others[: max(0, len(encoded) + len(missing) - _ENCODED)]:
        del encoded[task]
    if missing:
        with backbone.encoding():
            for task in missing:
                encoded[task] = backbone.encode([task]).to("cpu")
    return Condition.cat([encoded[task] for task in tasks])
