"""What a run will do, from its configuration alone: pure, printed by `treerl plan`, and obeyed by the trainer."""

from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from treerl import registry
from treerl.engine import noise
from treerl.engine.branching import Branching, Law, Shape, kept
from treerl.engine.noise import Purpose

if TYPE_CHECKING:
    from treerl.config.schema import Config


@dataclass(frozen=True)
class Counts:
    """Work of one prompt, of an iteration or of a run; fractions are expectations over the window's law."""

    sampling_forwards: float = (
        0.0  # denoiser evaluations of one latent; guidance above 1 doubles the network's rows
    )
    update_forwards: float = 0.0  # with backward; siblings share their parent's
    edges: float = 0.0  # loss terms
    leaves: float = 0.0
    decodes: float = 0.0
    reward_calls: float = 0.0  # pictures scored, summed over rewards

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(self._row(), other._row(), strict=True)))

    def __mul__(self, factor: float) -> "Counts":
        return Counts(*(factor * value for value in self._row()))

    def _row(self) -> tuple[float, ...]:
        return tuple(asdict(self).values())

    def plain(self) -> dict[str, float]:
        """By name, whole numbers as integers."""
        return {
            name: round(value) if abs(value - round(value)) < 1e-9 else value
            for name, value in asdict(self).items()
        }


def count(shape: Shape, roots: int, fraction: float = 1.0, rewards: int = 1) -> Counts:
    """The work of `roots` trees of that shape: the closed form F = n Σ_i Π_{j<i} b_j and its relatives."""
    live, forwards, nodes, edges = 1, 0, 0, 0
    for children, stochastic in zip(shape.children, shape.stochastic, strict=True):
        forwards += live
        nodes += live if stochastic else 0
        edges += live * children if stochastic else 0
        live *= children
    trained = kept(nodes, fraction)
    terms = edges * trained / nodes if nodes else 0
    return Counts(
        *(roots * value for value in (forwards, trained, terms, live, live, live * rewards))
    )


@dataclass(frozen=True)
class Plan:
    """The decisions of a run that follow from its configuration."""

    config: "Config"

    @cached_property
    def branching(self) -> Branching:
        branching: Branching = registry.build(
            "branchings", self.config.tree.window, self.config.tree
        )
        return branching

    def law(self, iteration: int) -> Law:
        """The shapes that this iteration's trees may have."""
        return self.branching.law(self.config.env.steps, iteration)

    def shape(self, iteration: int) -> Shape:
        """The shape that this iteration's trees do have, the same for all prompts and processes."""
        law = self.law(iteration)
        draw = noise.generator(self.config.seed, Purpose.SHAPE, iteration).random()
        total = 0.0
        for probability, shape in law:
            total += probability
            if draw < total:
                return shape
        return law[-1][1]

    def rows(self, iteration: int, available: int) -> list[tuple[int, int]]:
        """(pass, row) of this iteration's prompts: every pass over the file takes each row once, in a new order."""
        each = self.config.train.prompts
        places = range(iteration * each, (iteration + 1) * each)
        order = {
            turn: self._order(turn, available) for turn in {place // available for place in places}
        }
        return [
            (place // available, order[place // available][place % available]) for place in places
        ]

    def per_prompt(self, shape: Shape) -> Counts:
        """The work that a shape makes for one prompt."""
        tree = self.config.tree
        return count(shape, tree.roots, tree.fraction, len(self.config.rewards))

    def total(self, iterations: int | None = None) -> Counts:
        """The expected work of the run, or of its first `iterations`."""
        span = self.config.train.iterations if iterations is None else iterations
        work = Counts()
        for law, times in self._laws(span):
            work += (
                sum((self.per_prompt(shape) * chance for chance, shape in law), Counts()) * times
            )
        return work * self.config.train.prompts

    def drawn(self, iterations: int) -> Counts:
        """The work of the first `iterations` with the shapes that the seed draws: what a run must spend exactly."""
        work = (self.per_prompt(self.shape(iteration)) for iteration in range(iterations))
        return sum(work, Counts()) * self.config.train.prompts

    def starts(self) -> dict[int, Shape]:
        """Every shape that the run may meet, by the start of its window."""
        met = [shape for law, _ in self._laws(self._horizon) for _, shape in law]
        return {shape.start: shape for shape in sorted(met, key=lambda shape: shape.start)}

    def table(self) -> dict[str, Any]:
        """Everything, as `treerl plan --json` prints it."""
        config, iterations = self.config, max(self.config.train.iterations, 1)
        mean = self.total(iterations) * (1 / (iterations * config.train.prompts))
        by_start = [
            {"start": start, **self.per_prompt(shape).plain()}
            for start, shape in self.starts().items()
        ]
        return {
            "recipe": config.recipe,
            "per_prompt": {**mean.plain(), "by_start": by_start},
            "per_iteration": {
                "prompts": config.train.prompts,
                **(mean * config.train.prompts).plain(),
                "optimizer_steps": config.train.updates,
            },
            "run": {
                "iterations": config.train.iterations,
                **self.total().plain(),
                "optimizer_steps": config.train.iterations * config.train.updates,
            },
        }

    def _laws(self, iterations: int) -> list[tuple[Law, int]]:
        """The laws of the first iterations, each with the number of consecutive iterations that it holds for."""
        return [(law, len(list(same))) for law, same in groupby(map(self.law, range(iterations)))]

    @property
    def _horizon(self) -> int:
        # long enough for a sliding window to have visited every start, whatever the length of the run
        tree = self.config.tree
        return max(self.config.train.iterations, tree.every * self.config.env.steps)

    def _order(self, turn: int, available: int) -> list[int]:
        order: list[int] = (
            noise.generator(self.config.seed, Purpose.PROMPTS, turn).permutation(available).tolist()
        )
        return order
