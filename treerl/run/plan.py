"""What a run will do, from its configuration alone: printed by `treerl plan`, obeyed by the run."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from treerl.config.schema import Config
from treerl.engine import noise
from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import Distribution
from treerl.engine.noise import Stream
from treerl.engine.objective import LeafObjective
from treerl.engine.tree_spec import TreeSpec


@dataclass(frozen=True)
class Counts:
    """Work of one prompt, of an iteration or of a run; fractions are expectations over trees."""

    sampling_forwards: float = 0.0  # denoiser evaluations of one latent; guidance doubles the rows
    update_forwards: float = 0.0  # with backward; siblings share their parent's
    reference_forwards: float = 0.0  # of an update, under other weights and without backward
    edges: float = 0.0  # loss terms
    leaves: float = 0.0
    decodes: float = 0.0
    reward_calls: float = 0.0  # samples scored, summed over rewards

    @property
    def forwards(self) -> float:
        """Evaluations of the network, whatever they are for."""
        return self.sampling_forwards + self.update_forwards + self.reference_forwards

    def __add__(self, other: "Counts") -> "Counts":
        total = asdict(other)
        return Counts(**{name: value + total[name] for name, value in asdict(self).items()})

    def __mul__(self, factor: float) -> "Counts":
        return Counts(**{name: factor * value for name, value in asdict(self).items()})

    def plain(self) -> dict[str, float]:
        """By name, whole numbers as integers."""
        numbers = asdict(self)
        for name, value in numbers.items():
            if abs(value - round(value)) < 1e-9:
                numbers[name] = round(value)
        return numbers


def count(spec: TreeSpec, algorithm: Algorithm, rewards: int = 1) -> Counts:
    """The work of one tree of that spec."""
    scored = spec.finished + (spec.previews if algorithm.previews else 0)
    if isinstance(algorithm.objective, LeafObjective):
        updated = spec.leaves
        terms: float = spec.leaves
    else:
        updated = algorithm.selection.decisions(spec)
        terms = algorithm.selection.edges(spec)
    update_forwards = updated * algorithm.ppo_epochs
    compares = algorithm.objective.weight_set is not None
    return Counts(
        sampling_forwards=spec.forwards,
        update_forwards=update_forwards,
        reference_forwards=update_forwards if compares else 0.0,
        edges=terms * algorithm.ppo_epochs,
        leaves=spec.leaves,
        decodes=scored,
        reward_calls=scored * rewards,
    )


@dataclass(frozen=True)
class Plan:
    """The decisions of a run that follow from its configuration."""

    algorithm: Algorithm
    steps: int  # T
    iterations: int
    prompts_per_iteration: int
    rewards: int  # K
    seed: int

    def rows(self, iteration: int, available: int) -> list[tuple[int, int]]:
        """(pass, row) of an iteration's prompts: a pass takes every row once, in a new order."""
        each = self.prompts_per_iteration
        orders: dict[int, list[int]] = {}
        rows = []
        for place in range(iteration * each, (iteration + 1) * each):
            turn = place // available
            if turn not in orders:
                orders[turn] = self._order(turn, available)
            rows.append((turn, orders[turn][place % available]))
        return rows

    @cached_property
    def support(self) -> tuple[TreeSpec, ...]:
        """Every tree that the run may grow."""
        return self.algorithm.trees.support(self.steps)

    @property
    def updates(self) -> int:
        """Optimizer steps of an iteration."""
        return self.algorithm.optimizer_steps * self.algorithm.ppo_epochs

    def per_prompt(self, spec: TreeSpec) -> Counts:
        """The work of one prompt whose trees are of that spec."""
        return self._count(spec) * self.algorithm.trees_per_prompt

    def total(self, iterations: int | None = None) -> Counts:
        """The expected work of the run, or of its first `iterations`."""
        span = self.iterations if iterations is None else iterations
        work = Counts()
        for times, spec in self.expected(span):
            work += self.per_prompt(spec) * times
        return work * self.prompts_per_iteration

    def expected(self, iterations: int) -> Iterator[tuple[float, TreeSpec]]:
        """The trees of a prompt in the first `iterations`, and how often each is expected."""
        merged: dict[Distribution, int] = {}  # a window that moves comes back
        for distribution, count_ in self.algorithm.trees.phases(self.steps, iterations):
            merged[distribution] = merged.get(distribution, 0) + count_
        for distribution, times in merged.items():
            for probability, spec in distribution:
                yield probability * times, spec

    def drawn(self, iterations: int) -> Counts:
        """The work of the first `iterations` with the trees that the seed draws."""
        work = Counts()
        for iteration in range(iterations):
            work += self.drawn_in(iteration)
        return work

    def drawn_in(self, iteration: int) -> Counts:
        """The work of one iteration with the trees that the seed draws."""
        uniform = noise.generator(self.seed, Stream.SHAPE, iteration).random()
        trees = self.algorithm.trees_per_prompt
        (specs,) = self.algorithm.trees.forest(self.steps, iteration, uniform, (None,), trees)
        work = Counts()
        for spec in specs:
            work += self._count(spec)
        return work * self.prompts_per_iteration

    def table(self) -> dict[str, Any]:
        """Everything, as `treerl plan --json` prints it."""
        iterations = max(self.iterations, 1)
        prompts = self.prompts_per_iteration
        work = self.total(iterations)
        mean = work * (1 / (iterations * prompts))
        usual = [spec for _, spec in self.algorithm.trees.distribution(self.steps, 0)]
        starts = {spec.start: spec for spec in (*self.support, *usual)}
        by_start = []
        for _, spec in sorted(starts.items()):
            by_start.append({"start": spec.start, **self.per_prompt(spec).plain()})
        per_iteration = {
            "prompts": prompts,
            **(mean * prompts).plain(),
            "optimizer_steps": self.updates,
        }
        spent = work if self.iterations else Counts()
        run = {"iterations": self.iterations, **spent.plain()}
        return {
            "recipe": self.algorithm.name,
            "per_prompt": {**mean.plain(), "by_start": by_start},
            "per_iteration": per_iteration,
            "run": {**run, "optimizer_steps": self.iterations * self.updates},
        }

    def _count(self, spec: TreeSpec) -> Counts:
        return count(spec, self.algorithm, self.rewards)

    def _order(self, turn: int, available: int) -> list[int]:
        generator = noise.generator(self.seed, Stream.PROMPTS, turn)
        order: list[int] = generator.permutation(available).tolist()
        return order


def plan_of(config: Config, algorithm: Algorithm) -> Plan:
    """What the run of a configuration will do."""
    return Plan(
        algorithm=algorithm,
        steps=config.env.steps,
        iterations=config.train.iterations,
        prompts_per_iteration=config.train.prompts_per_iteration,
        rewards=len(config.rewards),
        seed=config.seed,
    )
