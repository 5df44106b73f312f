"""A run from beginning to end: evaluate, train, evaluate; whoever looks on does not change it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from treerl.engine.step import Step
from treerl.errors import NumericsError, StorageError
from treerl.run.evaluate import Evaluation, Figures
from treerl.run.files import MetricsRow
from treerl.run.guard import Trouble
from treerl.run.keeper import Keeper
from treerl.run.plan import Counts
from treerl.run.progress import Progress
from treerl.run.watch import alarms

_ROLLBACKS = 3  # a run that goes wrong more often is beyond help


class Listener:
    """Looks on at a run; every method may be left out."""

    def began(self, run: "Run") -> None:
        """The run is about to begin."""

    def resumed(self, run: "Run", rows: Sequence[MetricsRow]) -> None:
        """The run goes on after these iterations, `began` follows; or it was rolled back."""

    def replayed(self, run: "Run", noise: float) -> None:
        """Ratios differ from 1 by so much through rounding alone; measured before training."""

    def evaluated(self, run: "Run", when: str, evaluation: Evaluation) -> None:
        """Held-out tasks were drawn "before", "after" or at "iteration N"."""

    def stepped(self, run: "Run", step: Step, row: dict[str, Any]) -> None:
        """An iteration is done; `row` is what metrics.jsonl keeps of it."""

    def amended(self, run: "Run", row: dict[str, Any]) -> None:
        """The last row is another: what it was to be evaluated on was done after an end."""

    def alarmed(self, run: "Run", text: str) -> None:
        """Something is wrong with the run, in words."""

    def ended(self, run: "Run", error: BaseException | None) -> None:
        """The run is over, or was ended by an error; called whatever happens."""


@dataclass(kw_only=True)
class Run(Progress):
    """One training run of a session, with those who look on."""

    keeper: Keeper  # of its checkpoints
    listeners: Sequence[Listener] = ()
    after: Evaluation | None = None
    last: Step | None = None  # since the run was started or taken up

    def execute(self) -> None:
        """Do all of it; an error ends it, after the listeners were told."""
        errors: list[BaseException] = []
        try:
            for listener in self.listeners:
                listener.began(self)
            self._train()
        except BaseException as raised:
            errors.append(raised)
        error = errors[0] if errors else None
        for ended in (self.keeper.ended, *(listener.ended for listener in self.listeners)):
            try:  # each is told, even when another one fails
                ended(self, error)
            except BaseException as raised:
                errors.append(raised)
        if errors:
            # on a full disk nothing can be written after the file that found no room
            full = [error for error in errors if isinstance(error, StorageError)]
            raise full[0] if full else errors[-1]

    def resume(self, rows: Sequence[MetricsRow]) -> None:
        super().resume(rows)
        for listener in self.listeners:
            listener.resumed(self, rows)

    def _train(self) -> None:
        if self.iterations < self.session.config.train.iterations:
            noise = self.session.replay_noise()
            for listener in self.listeners:
                listener.replayed(self, noise)
        if self.before is None:
            self.before = self._evaluate("before")
        self.keeper.began(self)
        left = True
        while left:
            try:
                self._catch_up(self.before)
                self._iterations(self.before)
                left = False
            except _Wrong as error:
                self._roll_back(str(error))
        self.after = self._evaluate("after")
        self._alarm(alarms_between(self.before, self.after), "after training")

    def _iterations(self, before: Figures) -> None:
        """All that are left; `_Wrong` when they lead nowhere and the run shall go back."""
        began = time.perf_counter()
        for step in self._steps():
            seconds = time.perf_counter() - began
            self.seconds["train"] = self.seconds.get("train", 0.0) + seconds
            self._step(step, seconds, before)
            began = time.perf_counter()

    def _steps(self) -> Iterator[Step]:
        try:
            yield from self.session.train()
        except NumericsError as error:
            if self.session.config.train.guard == "rollback":
                raise _Wrong(str(error)) from error
            raise

    def _step(self, step: Step, seconds: float, before: Figures) -> None:
        before_rows = self.session.config.train.micro_batch_size
        if self.last is not None:
            before_rows = self.last.metrics["rows"]
        self.last = step
        self.spent += work_of(step)
        row = {"iteration": step.iteration + 1, **step.metrics, "seconds": round(seconds, 3)}
        when = f"iteration {step.iteration + 1}"
        troubles = self.guard.look(step.metrics, len(step.tasks))
        said = [trouble.text for trouble in troubles]
        rows = step.metrics["rows"]
        if rows < before_rows:
            said.append(f"memory was short: forwards have {rows} rows from here on")
        texts = self._alarm(said, when)
        if texts:
            row["alarms"] = texts
        heldout = None
        try:
            if self._due():
                heldout, fallen = self._held_out(row, before)
                troubles += fallen
        finally:  # the iteration is done, whatever ended its evaluation
            for listener in self.listeners:
                listener.stepped(self, step, row)
            self.recorded = self.iterations
        self._obey(troubles, when)
        self.keeper.stepped(self, heldout)

    def _held_out(self, row: dict[str, Any], before: Figures) -> tuple[float, list[Trouble]]:
        """Evaluate on the way, into the iteration's row: the reward, and what has fallen."""
        when = f"iteration {row['iteration']}"
        evaluation = self._evaluate(when)
        row["heldout"] = evaluation.summary()
        texts = alarms_between(before, evaluation)
        if texts:
            row["alarms"] = [*row.get("alarms", []), *self._alarm(texts, when)]
        troubles = [Trouble(text, serious=True, curable=True) for text in texts]
        return float(evaluation.total.nanmean()), troubles

    def _catch_up(self, before: Figures) -> None:
        """Evaluate what the last iteration before an end was still to be evaluated on."""
        if self.unevaluated is None:
            return
        row = self.unevaluated
        _, troubles = self._held_out(row, before)
        self.unevaluated = None
        for listener in self.listeners:
            listener.amended(self, row)
        self._obey(troubles, f"iteration {row['iteration']}")

    def _obey(self, troubles: Sequence[Trouble], when: str) -> None:
        """Do as `train.guard` says about what makes going on senseless."""
        wish = self.session.config.train.guard
        troubles = [trouble for trouble in troubles if trouble.serious]
        if not troubles or wish == "say":
            return
        text = f"{when}: {'; '.join(trouble.text for trouble in troubles)}"
        if wish == "rollback" and all(trouble.curable for trouble in troubles):
            raise _Wrong(text)
        raise NumericsError(f"train.guard: {text}")

    def _roll_back(self, why: str) -> None:
        """Go back to where the run was still right, and on from there in smaller steps."""
        if self.rollbacks >= _ROLLBACKS:
            raise NumericsError(f"train.guard: {why}; rolled back {self.rollbacks} times already")
        rollbacks = self.rollbacks + 1
        alarms = list(self.alarms)
        self.keeper.roll_back(self)
        self.rollbacks = rollbacks
        self.alarms = alarms
        self.slow_down()
        self._alarm(
            [f"back at this iteration with the learning rate {self.learning_rate:.3g}: {why}"],
            f"iteration {self.iterations}",
        )

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


class _Wrong(Exception):
    """Why a run is to be rolled back."""


def alarms_between(before: Figures, after: Figures) -> list[str]:
    """Watched rewards that fell while the trained one rose."""
    return alarms(before.watched, after.watched, after.total - before.total)


def work_of(step: Step) -> Counts:
    """What an iteration cost."""
    metrics = step.metrics
    scored = int((~step.scores.isnan().any(1)).sum())
    scored += len(step.tree.leaves) * len(step.tree.granularities)
    return Counts(
        sampling_forwards=metrics["sampling_forwards"],
        update_forwards=metrics["update_forwards"],
        reference_forwards=metrics["reference_forwards"],
        edges=metrics["edges"],
        leaves=metrics["leaves"],
        decodes=scored,
        reward_calls=scored * step.scores.shape[1],
    )
