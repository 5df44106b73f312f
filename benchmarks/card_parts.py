"""What an iteration of `card.py` is made of: primitives, counted work, and the floor of both."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median

import torch
from card_clock import PHASES, Clock, Observed
from torch import Tensor

from treerl.backbone.contract import Backbone, Condition
from treerl.engine import noise
from treerl.engine.noise import Stream
from treerl.engine.scorer import Scorer
from treerl.engine.task import Samples
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
    trunk_folds: float = 0
    tail_folds: float = 0


def work(plan: Plan, iteration: int, rows: int | None = None) -> Work:
    """What the plan counts of the trees that the seed draws.

    Of `rows` it is what the engine computes: the last chunk of a level is filled up, and a LoRA
    folded into its layers for a trunk, and for tails.
    """
    uniform = noise.generator(plan.seed, Stream.SHAPE, iteration).random()
    algorithm = plan.algorithm
    trees = algorithm.trees_per_prompt
    (specs,) = algorithm.trees.forest(plan.steps, iteration, uniform, (None,), trees)
    prompts = plan.prompts_per_iteration
    forwards = dict.fromkeys(("trunk", "window", "tails"), 0)
    folds = dict.fromkeys(forwards, 0)
    place = "trunk"
    for level, sampled in enumerate(specs[0].stochastic):
        if sampled:
            place = "window"
        elif place == "window":
            place = "tails"
        forwards[place] += filled(prompts * sum(spec.widths[level] for spec in specs), rows)
        folds[place] = int(rows is not None)
    counts = plan.drawn_in(iteration)
    each, more = divmod(round(counts.update_forwards), plan.updates)
    updates = filled(each, rows) * (plan.updates - more) + filled(each + 1, rows) * more
    return Work(
        prompts=prompts,
        **forwards,
        updates=updates,
        references=updates if counts.reference_forwards else 0,
        decodes=filled(round(counts.decodes), rows),
        reward_calls=counts.reward_calls,
        optimizer_steps=plan.updates,
        trunk_folds=folds["trunk"],
        tail_folds=folds["tails"],
    )


def filled(count: int, rows: int | None) -> int:
    """Rows that go through the network for so many latents."""
    return count if rows is None else -(-count // rows) * rows


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
    fold: float  # into all layers and out again, for a trunk or for tails


def floor(work: Work, cost: Primitives) -> dict[str, float]:
    """Seconds by phase that the counted work takes at the price of its primitives."""
    spent = {
        "encode": work.prompts * cost.encode,
        "trunk": work.trunk * cost.folded + work.trunk_folds * cost.fold,
        "window": work.window * cost.window,
        "tails": work.tails * cost.folded + work.tail_folds * cost.fold,
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
    graph: bool  # whether a sampled move is computed by the graph of the update

    @classmethod
    def of(cls, env: Observed, rows: int, apart: bool, graph: bool) -> "Batch":
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
            graph=graph,
        )

    def sample(self) -> None:
        """A forward without gradient."""
        for _ in range(2 if self.twice else 1):
            self._forward(False)

    def sample_in_window(self) -> None:
        """A forward whose density is asked for."""
        if self.graph:
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
class Part:
    """Something that is timed, within something that is not."""

    name: str
    call: Callable[[], object]
    share: int  # of how many its time is told
    inside: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Bench:
    """Measures primitives."""

    env: Observed  # with its tasks
    rewards: Scorer
    optimizer: torch.optim.Optimizer
    clock: Clock
    repeats: int

    def primitives(self, rows: int, apart: bool = False, compiled: bool = False) -> Primitives:
        """At so many rows; `apart` as simple code does it: nothing batched, nothing folded."""
        backbone = self.env.backbone
        batch = Batch.of(self.env, rows, apart, compiled)
        leaves = 1 if apart else LEAVES
        samples = self._samples(batch, leaves)
        parts = [
            Part("plain", batch.sample, rows),
            Part("folded", batch.sample, rows, nullcontext if apart else backbone.faster),
            Part("window", batch.sample_in_window, rows),
            Part("update", batch.update, rows),
            Part("decode", batch.decode, rows),
            Part("reward", lambda: self.rewards(samples), leaves * len(self.rewards.names)),
            Part("optimizer", self.optimizer.step, 1, self._flat),
            Part("fold", self._fold, 1),
        ]
        with backbone.encoding():  # the encoders come to the device once
            encode = Part("encode", lambda: backbone.encode(self.env.tasks[:1]), 1)
            text = self._medians([encode])
        return Primitives(rows=rows, **self._medians(parts), **text)

    def _medians(self, parts: Sequence[Part]) -> dict[str, float]:
        """All parts in turn, again and again: a machine that slows down slows them all.

        Each is timed right after itself, lest what went before leaves it cold caches.
        """
        spans: dict[str, list[float]] = {part.name: [] for part in parts}
        for _ in range(self.repeats):
            for part in parts:
                with part.inside():
                    part.call()
                    began = self.clock.now()
                    part.call()
                    spans[part.name].append(self.clock.now() - began)
        return {part.name: 1e3 * median(spans[part.name]) / part.share for part in parts}

    def _samples(self, batch: Batch, leaves: int) -> Samples:
        x = batch.x[:1].expand(leaves, *self.env.shape)
        step = torch.full((leaves,), self.env.steps)
        samples: Samples = self.env.samples(State(x, step, torch.zeros_like(step)))
        return samples

    @contextmanager
    def _flat(self) -> Iterator[None]:
        """Gradients of 0, by which an optimizer's step moves next to nothing."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        yield
        self.optimizer.zero_grad(set_to_none=True)

    def _fold(self) -> None:
        with self.env.backbone.faster():
            pass
