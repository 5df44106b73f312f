"""The denoising environment of a backbone that makes pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from treerl import registry
from treerl.backbone import Backbone, Condition
from treerl.env import PromptedEnv
from treerl.errors import NumericsError
from treerl.flow import ODE, Gaussian, Kernel, Schedule, Table, refuse_unsound
from treerl.grow import chunks
from treerl.reward import Reward, score
from treerl.tree import State

if TYPE_CHECKING:
    from treerl.config import Config

_REMEMBERED = 4096  # encoded prompts kept; a text is encoded once, alone, so that it never depends on its neighbours


@dataclass(frozen=True)
class ImageEnv(PromptedEnv):
    """A backbone walked by a kernel, its pictures scored by rewards."""

    backbone: Backbone
    kernel: Kernel
    rewards: dict[str, Reward]
    schedule: Schedule
    storage_name: str
    guidance: float
    rows: int  # samples per forward and per decode
    prompts: tuple[str, ...] = ()
    condition: Condition | None = None
    memory: dict[str, Condition] = field(default_factory=dict, repr=False)  # shared by all copies

    @classmethod
    def make(cls, backbone: Backbone, rewards: dict[str, Reward], config: "Config") -> "ImageEnv":
        return cls(
            backbone=backbone,
            kernel=registry.build("kernels", config.kernel.name, config.kernel),
            rewards=rewards,
            schedule=backbone.schedule(config.env.steps),
            storage_name=config.env.storage,
            guidance=config.env.guidance,
            rows=config.train.rows,
        )

    def ask(self, prompts: Sequence[str]) -> "ImageEnv":
        return replace(self, prompts=tuple(prompts), condition=_encode(self.backbone, self.memory, prompts))

    def walk(self, steps: int) -> "ImageEnv":
        return replace(self, schedule=self.backbone.schedule(steps))

    @property
    def steps(self) -> int:
        return self.schedule.steps

    @property
    def shape(self) -> tuple[int, ...]:
        return self.backbone.shape

    @property
    def storage(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.storage_name)
        return dtype

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def initial(self, prompt: Tensor, noise: Tensor) -> State:
        return State(self.backbone.initial(noise), torch.zeros_like(prompt), prompt)

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        assert self.condition is not None, "ask() comes before policy()"
        time = self.schedule.time[state.step.cpu()].to(self.device)
        velocity = self.backbone.predict(state.x, time, self.condition.take(state.prompt), self.guidance)
        table = self.table if stochastic else self._ode
        return table.gaussian(state.x, velocity, state.step)

    def score(self, images: Tensor, prompt: Tensor) -> Tensor:
        prompts = [self.prompts[row] for row in prompt.tolist()]
        return torch.stack([score(name, reward, images, prompts) for name, reward in self.rewards.items()], dim=1)

    def decode(self, state: State) -> Tensor:
        """The pictures `[M, 3, H, W]` in [0, 1] of finished states, on the CPU."""
        with torch.no_grad():
            parts = [
                self.backbone.decode(state.x[index.to(self.device)])[:real].cpu()
                for index, real in chunks(len(state.x), self.rows)
            ]
        images = torch.cat(parts)
        good = torch.isfinite(images).flatten(1).all(1)
        if not bool(good.all()):
            row = int((~good).nonzero()[0])
            prompt = self.prompts[int(state.prompt[row])]
            raise NumericsError(f"decode: sample {row} is not finite (prompt {prompt!r})")
        return images

    def refuse_unsound(self, stochastic: tuple[bool, ...]) -> None:
        refuse_unsound(self.table, self.schedule, stochastic)

    @cached_property
    def table(self) -> Table:
        return self.kernel.table(self.schedule)

    @cached_property
    def _ode(self) -> Table:
        return ODE().table(self.schedule)


def _encode(backbone: Backbone, memory: dict[str, Condition], prompts: Sequence[str]) -> Condition:
    for prompt in dict.fromkeys(prompts):
        if prompt not in memory:
            if len(memory) >= _REMEMBERED:
                memory.pop(next(iter(memory)))
            memory[prompt] = backbone.encode([prompt])
    rows = [memory[prompt] for prompt in prompts]
    return Condition({name: torch.cat([row[name] for row in rows]) for name in rows[0].tensors})
