"""A run from beginning to end: evaluate, train, evaluate; whoever looks on does not change it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from treerl.engine.trainer import Step
from treerl.errors import NumericsError
from treerl.run.evaluate import Evaluation
from treerl.run.guard import Guard
from treerl.run.plan import Counts
from treerl.run.session import Session
from treerl.run.watch import alarms


class Listener:
    """Looks on at a run; every method may be left out."""

    def began(self, run: "Run") -> None:
        """The run is about to begin."""

    def evaluated(self, run: "Run", when: str, evaluation: Evaluation) -> None:
        """Held-out tasks were drawn "before", "after" or at "iteration N"."""

    def stepped(self, run: "Run", step: Step, row: dict[str, Any]) -> None:
        """An iteration is done; `row` is what metrics.jsonl keeps of it."""

    def alarmed(self, run: "Run", text: str) -> None:
        """Something is wrong with the run, in words."""

    def ended(self, run: "Run", error: BaseException | None) -> None:
        """The run is over, or was ended by an error; called whatever happens."""


@dataclass
class Run:
    """One training run of a session, with those who look on."""

    session: Session
    listeners: Sequence[Listener] = ()
    before: Evaluation | None = None
    after: Evaluation | None = None
    first: Step | None = None
    last: Step | None = None
    spent: Counts = field(default_factory=Counts)
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    alarms: list[str] = field(default_factory=list)
    guard: Guard = field(default_factory=Guard)

    @property
    def iterations(self) -> int:
        """Iterations that are done."""
        return self.session.trainer.iteration

    def execute(self) -> None:
        """Do all of it; an error ends it, after the listeners were told."""
        error: BaseException | None = None
        try:
            for listener in self.listeners:
                listener.began(self)
            self._train()
        except BaseException as raised:
            error = raised
            raise
        finally:
            with ExitStack() as stack:  # each is told, even when another one fails
                for listener in reversed(self.listeners):
                    stack.callback(listener.ended, self, error)

    def _train(self) -> None:
        self.before = self._evaluate("before")
        began = time.perf_counter()
        for step in self.session.train():
            seconds = time.perf_counter() - began
            self.seconds["train"] = self.seconds.get("train", 0.0) + seconds
            self._step(step, seconds)
            began = time.perf_counter()
        self.after = self._evaluate("after")
        self._alarm(alarms_between(self.before, self.after), "after training")

    def _step(self, step: Step, seconds: float) -> None:
        self.first = self.first or step
        self.last = step
        self.spent += work_of(step)
        row = {"iteration": step.iteration + 1, **step.metrics, "seconds": round(seconds, 3)}
        when = f"iteration {step.iteration + 1}"
        troubles = self.guard.look(step.metrics, len(step.tasks))
        texts = self._alarm([trouble.text for trouble in troubles], when)
        serious = [trouble.text for trouble in troubles if trouble.serious]
        every = self.session.config.evaluate.every
        if every and (step.iteration + 1) % every == 0 and self.before is not None:
            evaluation = self._evaluate(when)
            row["heldout"] = evaluation.summary()
            texts += self._alarm(alarms_between(self.before, evaluation), when)
        if texts:
            row["alarms"] = texts
        for listener in self.listeners:
            listener.stepped(self, step, row)
        if serious and self.session.config.train.guard == "stop":
            raise NumericsError(f"train.guard: {when}: {'; '.join(serious)}")

    def _evaluate(self, when: str) -> Evaluation:
        with self.timed("evaluate"):
            evaluation = self.session.evaluate()
        for listener in self.listeners:
            listener.evaluated(self, when, evaluation)
        return evaluation

    def _alarm(self, texts: list[str], when: str) -> list[str]:
        texts = [f"{when}: {text}" for text in texts]
        for text in texts:
            self.alarms.append(text)
            for listener in self.listeners:
                listener.alarmed(self, text)
        return texts

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the seconds inside to a phase."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began


def alarms_between(before: Evaluation, after: Evaluation) -> list[str]:
    """Watched rewards that fell while the trained one rose."""
    return alarms(before.watched, after.watched, after.total - before.total)


def work_of(step: Step) -> Counts:
    """What an iteration cost."""
    metrics = step.metrics
    scored = int((~step.scores.isnan().any(1)).sum())
    return Counts(
        sampling_forwards=metrics["sampling_forwards"],
        update_forwards=metrics["update_forwards"],
        edges=metrics["edges"],
        leaves=metrics["leaves"],
        decodes=scored,
        reward_calls=scored * step.scores.shape[1],
    )
