"""What an iteration of `card.py` is made of: primitives, counted work, and the floor of both."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median

import torch
from card_clock import PHASES, Clock, Observed
from torch import Tensor

from treerl.backbone.contract import Backbone, Condition
from treerl.engine import noise
from treerl.engine.noise import Stream
from treerl.engine.scorer import Scorer
from treerl.engine.tree import State
from treerl.run.plan import Plan

LEAVES = 27  # that a reward scores at once, and that every recipe is compared at


@dataclass(frozen=True)
class Work:
    """How often an iteration does what a primitive measures, one latent each."""

    prompts: float
    trunk: float
    window: float
    tails: float
    updates: float
    references: float
    decodes: float
    reward_calls: float
    optimizer_steps: float


def work(plan: Plan, iteration: int, rows: int = 1) -> Work:
    """Of the trees that the seed draws; of `rows` the last chunk is filled up, as the engine does.

    With one row it is what the plan counts.
    """
    algorithm = plan.algorithm
    uniform = noise.generator(plan.seed, Stream.SHAPE, iteration).random()
    trees = algorithm.trees_per_prompt
    (own,) = algorithm.trees.forest(plan.steps, iteration, uniform, (None,), trees)
    prompts = plan.prompts_per_iteration
    forwards = dict.fromkeys(("trunk", "window", "tails"), 0)
    place = "trunk"
    for level, sampled in enumerate(own[0].stochastic):
        if sampled:
            place = "window"
        elif place == "window":
            place = "tails"
        forwards[place] += filled(prompts * sum(spec.widths[level] for spec in own), rows)
    counts = plan.drawn_in(iteration)
    each, more = divmod(round(counts.update_forwards), plan.updates)
    few = filled(each, rows) * (plan.updates - more)
    updates = few + filled(each + 1, rows) * more
    return Work(
        prompts=prompts,
        **forwards,
        updates=updates,
        references=updates if counts.reference_forwards else 0,
        decodes=filled(round(counts.decodes), rows),
        reward_calls=counts.reward_calls,
        optimizer_steps=plan.updates,
    )


def filled(count: int, rows: int) -> int:
    """Rows that go through the network for so many latents."""
    return -(-count // rows) * rows


@dataclass(frozen=True)
class Primitives:
    """Milliseconds of the parts that an iteration is made of, medians."""

    rows: int  # latents together; guidance doubles them inside
    plain: float  # a sample's forward without gradient, the LoRA beside its layers
    folded: float  # the same with the LoRA folded into them
    window: float  # as a sampled move computes it: by the update's own graph where it is compiled
    update: float  # forward and backward
    decode: float
    reward: float
    encode: float  # a prompt
    optimizer: float  # a step
    fold: float  # into all layers and out again, once a level; no part of the floor


def floor(work: Work, cost: Primitives) -> dict[str, float]:
    """Seconds by phase that the counted work takes at the price of its primitives."""
    spent = {
        "encode": work.prompts * cost.encode,
        "trunk": work.trunk * cost.folded,
        "window": work.window * cost.window,
        "tails": work.tails * cost.folded,
        "score": work.decodes * cost.decode + work.reward_calls * cost.reward,
        "update": work.updates * cost.update + work.references * cost.plain,
        "optimizer": work.optimizer_steps * cost.optimizer,
        "rest": 0.0,
    }
    return {phase: spent[phase] / 1e3 for phase in PHASES}


@dataclass(frozen=True)
class Batch:
    """Latents before their first step, and the forwards that they are put through."""

    env: Observed
    x: Tensor  # [rows, ...]
    time: Tensor  # [rows]
    condition: Condition
    guidance: float
    twice: bool  # both halves of guidance one after the other

    @classmethod
    def of(cls, env: Observed, rows: int, apart: bool) -> "Batch":
        """Of the environment's tasks in turn; `apart` where guidance is not to be batched."""
        assert env.condition is not None
        task = torch.arange(rows) % len(env.tasks)
        x = torch.randn(rows, *env.shape, generator=torch.Generator().manual_seed(0))
        guidance = env.settings.guidance
        embedded = getattr(env.backbone, "guidance_embedded", False)
        twice = apart and guidance > 1 and not embedded
        return cls(
            env=env,
            x=x.to(env.device),
            time=env.schedule.time[:1].expand(rows).to(env.device),
            condition=env.condition.take(task.to(env.device)),
            guidance=1.0 if twice else guidance,
            twice=twice,
        )

    def sample(self) -> None:
        """A forward without gradient."""
        for _ in range(2 if self.twice else 1):
            self._forward(False)

    def sample_in_window(self) -> None:
        """A forward whose density is asked for."""
        if self.env.backbone.compiled:
            self._forward(True)
        else:
            self.sample()

    def update(self) -> None:
        """A forward and its backward pass."""
        if self.twice:
            self._forward(False)
        self._forward(True).square().mean().backward()  # type: ignore[no-untyped-call]

    def decode(self) -> None:
        with torch.no_grad():
            self.env.backbone.decode(self.x, self.condition)

    def _forward(self, grad: bool) -> Tensor:
        with torch.set_grad_enabled(grad):
            backbone: Backbone = self.env.backbone
            return backbone.predict(self.x, self.time, self.condition, self.guidance)


@dataclass(frozen=True)
class Bench:
    """Measures primitives."""

    env: Observed  # with its tasks
    rewards: Scorer
    optimizer: torch.optim.Optimizer
    clock: Clock
    repeats: int

    def primitives(self, rows: int, apart: bool = False) -> Primitives:
        """At so many rows; `apart` as simple code does it: nothing batched, nothing folded."""
        backbone = self.env.backbone
        batch = Batch.of(self.env, rows, apart)
        with nullcontext() if apart else backbone.faster():
            folded = self._span(batch.sample)
        with torch.no_grad(), backbone.encoding():
            encode = self._span(lambda: backbone.encode(self.env.tasks[:1]))
        return Primitives(
            rows=rows,
            plain=self._span(batch.sample) / rows,
            folded=folded / rows,
            window=self._span(batch.sample_in_window) / rows,
            update=self._span(batch.update) / rows,
            decode=self._span(batch.decode) / rows,
            reward=self._reward(batch, 1 if apart else LEAVES),
            encode=encode,
            optimizer=self._optimizer(),
            fold=self._span(self._fold),
        )

    def _span(self, call: Callable[[], object]) -> float:
        """Milliseconds, the median of repetitions after one that is not counted."""
        call()
        spans = []
        for _ in range(self.repeats):
            began = self.clock.now()
            call()
            spans.append(self.clock.now() - began)
        return 1e3 * median(spans)

    def _reward(self, batch: Batch, leaves: int) -> float:
        """A sample's, by one of the rewards."""
        x = batch.x[:1].expand(leaves, *self.env.shape)
        step = torch.full((leaves,), self.env.steps)
        samples = self.env.samples(State(x, step, torch.zeros_like(step)))
        calls = leaves * len(self.rewards.names)
        return self._span(lambda: self.rewards(samples)) / calls

    def _optimizer(self) -> float:
        """With gradients of 0: next to nothing moves."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        spent = self._span(self.optimizer.step)
        self.optimizer.zero_grad(set_to_none=True)
        return spent

    def _fold(self) -> None:
        with self.env.backbone.faster():
            pass
