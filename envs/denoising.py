"""The denoising environment: a backbone walked by a kernel, its pictures or videos scored by rewards."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from treerl import registry
from treerl.backbone.contract import Backbone, Condition
from treerl.engine.env import PromptedEnv
from treerl.engine.grow import chunks
from treerl.engine.kernel import ODE, Gaussian, Kernel, Table, refuse_unsound
from treerl.engine.schedule import Schedule
from treerl.engine.tree import State
from treerl.errors import NumericsError
from treerl.reward.rewards import Rewards

if TYPE_CHECKING:
    from treerl.config.schema import Config

_REMEMBERED = 1024  # encoded prompts kept; a text is encoded once, alone, so that it never depends on its neighbours


@dataclass(frozen=True)
class Denoising(PromptedEnv):
    """The Markov decision process of a backbone, a kernel and rewards."""

    backbone: Backbone
    kernel: Kernel
    rewards: Rewards
    schedule: Schedule
    storage_name: str
    store: str  # "device" or "cpu"
    guidance: float
    rows: int  # samples per forward and per decode
    prompts: tuple[str, ...] = ()
    condition: Condition | None = None
    memory: dict[str, Condition] = field(default_factory=dict, repr=False)  # shared by all copies

    @classmethod
    def make(cls, backbone: Backbone, rewards: Rewards, config: "Config") -> "Denoising":
        return cls(
            backbone=backbone,
            kernel=registry.build("kernels", config.kernel.name, config.kernel),
            rewards=rewards,
            schedule=backbone.schedule(config.env.steps),
            storage_name=config.env.storage,
            store=config.env.store,
            guidance=config.env.guidance,
            rows=config.train.rows,
        )

    def ask(self, prompts: Sequence[str]) -> "Denoising":
        condition = _encode(self.backbone, self.memory, prompts).to(self.device)
        return replace(self, prompts=tuple(prompts), condition=condition)

    def walk(self, steps: int) -> "Denoising":
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

    @property
    def stored_on(self) -> torch.device:
        return torch.device("cpu") if self.store == "cpu" else self.device

    def initial(self, prompt: Tensor, noise: Tensor) -> State:
        return State(self.backbone.initial(noise), torch.zeros_like(prompt), prompt)

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        assert self.condition is not None, "ask() comes before policy()"
        time = self.schedule.time[state.step.cpu()].to(self.device)
        x = state.x.to(self.device)
        prediction = self.backbone.predict(
            x, time, self.condition.take(state.prompt.to(self.device)), self.guidance
        )
        table = self.table if stochastic else self._ode
        return table.gaussian(x, prediction, state.step)

    def score(self, images: Tensor, prompt: Tensor) -> Tensor:
        return self.rewards(self.samples(images, prompt))

    def decode(self, state: State) -> Tensor:
        """The pictures `[M, 3, H, W]` or videos `[M, F, 3, H, W]` in [0, 1] of finished states, on the CPU."""
        images = self._decoded(state.x, self.rows)
        good = torch.isfinite(images).flatten(1).all(1)
        if not bool(good.all()):
            row = int((~good).nonzero()[0])
            prompt = self.prompts[int(state.prompt[row])]
            raise NumericsError(f"decode: sample {row} is not finite (prompt {prompt!r})")
        return images

    def _decoded(self, x: Tensor, rows: int) -> Tensor:
        """Samples of finished latents, in halves and halves again where memory is short; none is left out."""
        try:
            with torch.no_grad():
                parts = [
                    self.backbone.decode(x[index.to(x.device)].to(self.device))[:real].cpu()
                    for index, real in chunks(len(x), rows)
                ]
            return torch.cat(parts)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        return self._decoded(x, rows // 2)

    def refuse_unsound(self, stochastic: tuple[bool, ...]) -> None:
        refuse_unsound(self.table, self.schedule, stochastic)

    @cached_property
    def table(self) -> Table:
        return self.kernel.table(self.schedule)

    @cached_property
    def _ode(self) -> Table:
        return ODE().table(self.schedule)


def _encode(backbone: Backbone, memory: dict[str, Condition], prompts: Sequence[str]) -> Condition:
    wanted = dict.fromkeys(prompts)
    missing = [prompt for prompt in wanted if prompt not in memory]
    others = [prompt for prompt in memory if prompt not in wanted]  # oldest first
    for prompt in others[: max(0, len(memory) + len(missing) - _REMEMBERED)]:
        del memory[prompt]
    if missing:
        with backbone.encoding():
            memory.update((prompt, backbone.encode([prompt]).to("cpu")) for prompt in missing)
    return Condition.cat([memory[prompt] for prompt in prompts])
