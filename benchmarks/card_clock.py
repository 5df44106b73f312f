"""The clock of `card.py`, and an environment and a process that tell it their phases."""

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from treerl.envs.denoising import Denoising  # type: ignore[import-not-found]

from treerl.backbone.env import BackboneEnv
from treerl.engine.kernel import Kernel
from treerl.engine.peers import Alone
from treerl.engine.task import Task

PHASES = ("encode", "trunk", "window", "tails", "score", "update", "optimizer", "rest")


class Clock:
    """Seconds and peak memory by phase: what happens after `to` belongs to the phase it names."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cuda = device.type == "cuda"
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.peak: dict[str, float] = {}  # GiB
        self.phase = "rest"
        self.last = self.now()

    def now(self) -> float:
        """Seconds: of the wall once a card is done, of one thread's CPU, lest other jobs count."""
        if not self.cuda:
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def to(self, phase: str) -> None:
        self.seconds[self.phase] += self.now() - self.last
        if self.cuda:
            peak = torch.cuda.max_memory_allocated(self.device) / 2**30
            self.peak[self.phase] = max(peak, self.peak.get(self.phase, 0.0))
            torch.cuda.reset_peak_memory_stats(self.device)
        self.phase = phase
        self.last = self.now()

    def take(self) -> dict[str, float]:
        """The seconds by phase since the last `take`, an iteration's."""
        self.to("rest")
        taken = {phase: self.seconds[phase] for phase in PHASES}
        self.seconds.clear()
        return taken

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Tell the optimizer's steps from the update around them."""
        optimizer.register_step_pre_hook(lambda *_: self.to("optimizer"))
        optimizer.register_step_post_hook(lambda *_: self.to("update"))


@dataclass
class Laps(Alone):
    """One process whose phases a clock tells apart."""

    clock: Clock

    def phase(self, name: str) -> None:
        self.clock.to({"reward": "score", "update": "update"}.get(name, "rest"))


@dataclass(frozen=True)
class Observed(Denoising):  # type: ignore[misc]
    """The environment, telling a clock when it encodes and where in the tree it walks."""

    clock: Clock = field(kw_only=True)

    @classmethod
    def of(cls, env: BackboneEnv, kernel: Kernel, clock: Clock) -> "Observed":
        """The same model walked by a kernel; what was encoded need not be again."""
        assert isinstance(env, Denoising)
        parts = (env.backbone, kernel, env.settings, env.schedule)
        return cls(*parts, encoded=env.encoded, clock=clock)

    def with_tasks(self, tasks: Sequence[Task | str]) -> "Observed":
        self.clock.to("encode")
        env: Observed = super().with_tasks(tasks)
        self.clock.to("rest")
        return env

    def walking(self, stochastic: bool) -> AbstractContextManager[None]:
        before = "trunk" if self.clock.phase in ("rest", "trunk") else "tails"
        self.clock.to("window" if stochastic else before)
        walk: AbstractContextManager[None] = super().walking(stochastic)
        return walk
