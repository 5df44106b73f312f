"""Where a run stands: all of it that a checkpoint must keep beside what the trainer has learned."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from treerl.run.evaluate import Figures
from treerl.run.files import MetricsRow
from treerl.run.guard import Guard
from treerl.run.plan import Counts
from treerl.run.session import Session


@dataclass(kw_only=True)
class Progress:
    """A session, and what its run has come to."""

    session: Session
    before: Figures | None = None  # of the evaluation before training
    spent: Counts = field(default_factory=Counts)
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    alarms: list[str] = field(default_factory=list)
    rollbacks: int = 0
    recorded: int = 0  # iterations that the listeners were told of
    unevaluated: dict[str, Any] | None = None  # the last row, where its evaluation was cut short
    guard: Guard = field(default_factory=Guard)

    @property
    def iterations(self) -> int:
        """Iterations that are done."""
        return self.session.trainer.iteration

    @property
    def learning_rate(self) -> float:
        """What is configured, halved at every rollback."""
        rate: float = self.session.config.train.learning_rate / 2**self.rollbacks
        return rate

    def slow_down(self) -> None:
        """Tell the optimizer the learning rate that holds after the rollbacks so far."""
        for group in self.session.trainer.optimizer.param_groups:
            group["lr"] = self.learning_rate
            group["initial_lr"] = self.learning_rate

    def _due(self) -> bool:
        """Whether held-out tasks are to be drawn after this iteration."""
        every = self.session.config.evaluate.every
        return every > 0 and self.iterations > 0 and self.iterations % every == 0

    def resume(self, rows: Sequence[MetricsRow]) -> None:
        """Go on after these iterations; the keeper has put back all the rest."""
        self.slow_down()
        self.guard = Guard()
        for row in rows:
            self.guard.look(row.model_dump(), self.session.config.train.prompts_per_iteration)
        self.recorded = len(rows)
        self.unevaluated = None
        if self._due() and rows[-1].heldout is None:
            self.unevaluated = rows[-1].model_dump(exclude_unset=True)
