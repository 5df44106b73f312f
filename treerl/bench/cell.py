"""A cell of a comparison: one variant with one seed, trained until the budget is spent."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from treerl import registry
from treerl.bench.budget import Budget
from treerl.bench.files import Point
from treerl.bench.variant import Variant
from treerl.config.flags import Given
from treerl.config.resolve import dump
from treerl.config.schema import Config, plugin_names
from treerl.config.textfile import read_bytes
from treerl.errors import InputError, shown
from treerl.run.files import Summary, checked, plain
from treerl.run.plan import Counts
from treerl.run.run import work_of
from treerl.run.session import Session

_ENDLESS = 1 << 30  # iterations: the budget ends a cell
_BYTES = 1 << 24  # of a plug-in's file
Phase = Literal["sweep", "compare"]


@dataclass(frozen=True)
class Cell:
    """What is trained, with which settings, and for how much."""

    phase: Phase
    variant: Variant
    tried: tuple[str, ...]  # of the sweep
    seed: int
    config: Config
    budget: Budget
    marks: int

    @property
    def name(self) -> str:
        """`treegrpo:train.learning_rate=2e-4 seed 3`."""
        return f"{self.variant.with_settings(self.tried).label} seed {self.seed}"

    @cached_property
    def key(self) -> str:
        """A checksum of all that decides its figures, own files of plug-ins included."""
        files = [registry.source_file(name) for name in plugin_names(self.config)]
        contents = [read_bytes(path, _BYTES) for path in files if path is not None]
        told = [dump(self.config), self.budget.text, str(self.marks)]
        told += [hashlib.sha256(content).hexdigest() for content in contents]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    @property
    def file(self) -> str:
        """The name of its run file."""
        recipe = re.sub(r"[^A-Za-z0-9-]", "_", self.variant.recipe)
        return f"{recipe}-seed{self.seed}-{self.key[:12]}.yaml"


def configured(
    given: Given, variant: Variant, tried: Sequence[str], seed: int, budget: Budget
) -> Config:
    """The configuration of a cell: what holds for all, the variant's, the sweep's, the seed.

    `train.iterations` becomes the number in which the budget is spent, so that whatever follows
    it, a learning rate that decays, ends with the budget.
    """
    from treerl.config.algorithm import algorithm_of
    from treerl.run.plan import plan_of

    flags = {"recipe": variant.recipe, "output": None}
    sets = [*variant.settings, *tried, f"seed={seed}"]
    try:
        config = given.config(flags, sets)
        if config.recipe != variant.recipe:
            raise InputError("recipe: expected none in the settings, as --recipes names them")
        iterations = budget.iterations(plan_of(config, algorithm_of(config)))
        if iterations is not None:
            config = given.config(flags, [*sets, f"train.iterations={iterations}"])
    except InputError as error:
        label = shown(variant.with_settings(tried).label)
        lines = [f"{label}: {line}" for line in str(error).splitlines()]
        raise InputError("\n".join(lines)) from error
    return config


def train(session: Session, budget: Budget, marks: int, reached: Callable[[Point], None]) -> None:
    """Train until the budget is spent; `reached` gets a point before, and one for each mark.

    Marks are even shares of the budget. Iterations are whole: where one passes several marks, they
    share its evaluation, and the last one may spend more than is left.
    """
    work = Counts()
    seconds = 0.0
    mark = 0
    reached(_point(session, mark, work, seconds))
    began = time.perf_counter()
    for step in session.train(_ENDLESS):
        seconds += time.perf_counter() - began
        work += work_of(step)
        spent = budget.spent(work, seconds)
        point: Point | None = None
        while mark < marks and spent >= budget.amount * (mark + 1) / marks:
            mark += 1
            if point is None:
                point = _point(session, mark, work, seconds)
            reached(point.model_copy(update={"mark": mark}))
        if mark == marks:
            return
        began = time.perf_counter()


def _point(session: Session, mark: int, work: Counts, seconds: float) -> Point:
    summary = checked(Summary, plain(session.evaluate().summary()), "held-out figures")
    return Point(
        mark=mark,
        iteration=session.trainer.iteration,
        spent=dict(work.plain()),
        seconds=round(seconds, 3),
        heldout=summary,
    )
