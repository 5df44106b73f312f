"""Saves a run while it goes on, and takes it up again where a checkpoint left it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from treerl.engine.snapshot import PART
from treerl.engine.task import Task
from treerl.errors import InputError, Stopped, StorageError, printable
from treerl.run import checkpoints, durable, first_evaluation, reading, stored
from treerl.run.checkpoints import RunState
from treerl.run.folder import RunFolder
from treerl.run.guard import SPAN
from treerl.run.heartbeat import SAVING
from treerl.run.plan import Counts
from treerl.run.progress import Progress
from treerl.run.world import World


class Keeper:
    """The checkpoints of one run."""

    def __init__(self, folder: RunFolder, number: str, world: World | None = None) -> None:
        self.run_number = number
        self._world = world or World()
        self._run_folder = folder
        self._folder = folder.path / "checkpoints"
        self._saved = -1  # the iteration of the newest checkpoint

    def began(self, run: Progress) -> None:
        """Keep what a run may have to go back to."""
        if self._world.rank == 0:
            self._sweep()
        if run.session.config.train.guard == "rollback" and self._saved < 0:
            self.save(run)

    def stepped(self, run: Progress, heldout: float | None) -> None:
        """Save where `train.save_every` or a new best held-out reward asks for it."""
        train = run.session.config.train
        due = train.save_every > 0 and run.iterations % train.save_every == 0
        best = train.keep_best and heldout is not None and self._is_best(heldout)
        wanted = due or best or run.iterations == train.iterations
        # rank 0 has the folder that says what is best
        if self._world.agree(int(wanted and self._world.rank == 0)):
            self.save(run, heldout)

    def ended(self, run: Progress, error: BaseException | None) -> None:
        """Save what was done since, unless the last iteration was left in its middle.

        The other processes are told of the `error` first, as saving takes its time. What lies in
        parts is gathered by all of them, which only a signal ends at one point.
        """
        if error is not None:
            self._world.tell(error)
        if self._world.sharded and not isinstance(error, Stopped | None):
            return
        if error is not None:
            self._world.phase(SAVING)
        whole = not run.session.trainer.halfway and run.recorded == run.iterations
        if run.before is not None and whole and run.iterations > max(self._saved, 0):
            self.save(run)

    def save(self, run: Progress, heldout: float | None = None) -> None:
        """Publish a checkpoint, then remove those that are not to be kept; rank 0 alone writes.

        All processes call it, as each brings its part of a model that lies in parts.
        """
        if run.iterations == self._saved:
            return
        self._saved = run.iterations
        self._world.phase(SAVING)
        session = run.session
        tensors = {name: value.contiguous() for name, value in session.trainer.state().items()}
        cut = [name for name in tensors if name.startswith(PART)]
        parts = {name.removeprefix(PART): tensors.pop(name) for name in cut}
        if self._world.rank > 0:
            self._bring(parts, None)
            return
        self._run_folder.force_metrics()
        if run.before is not None:
            tensors |= first_evaluation.tensors_of(run.before)
        state = RunState(
            run=self.run_number,
            iteration=run.iterations,
            treerl=version("treerl"),
            tasks=digest(session.tasks, session.heldout),
            heldout=heldout,
            spent=asdict(run.spent),
            seconds=dict(run.seconds),
            quality={} if run.before is None else dict(run.before.quality),
            alarms=list(run.alarms),
            rollbacks=run.rollbacks,
        )
        # a LoRA of random weights could be mistaken for a trained one: it is kept for us alone
        named = None if session.backbone.random_weights else session.write
        bring = partial(self._bring, parts) if self._world.sharded else None
        size = sum(part.numel() * part.element_size() for part in parts.values())
        checkpoints.save(self._folder, state, tensors, named, bring, size * self._world.size)
        checkpoints.rotate(self._folder, self._kept(run))

    def _bring(self, parts: dict[str, Tensor], draft: Path | None) -> None:
        """Every process writes its own parts into the folder that rank 0 has made."""
        world = self._world
        if world.sharded:
            place = Path(world.text_of_first("" if draft is None else str(draft)))
            world.attempt(lambda: stored.write_part(place, parts, world.rank, world.size))
            if draft is not None:
                stored.refuse_missing(draft, world.size)

    def take_up(self, run: Progress) -> list[str]:
        """Put a run back to its newest whole checkpoint, or to its beginning; what was wrong."""
        wrong: list[str] = []

        def choose() -> int:
            self._sweep()
            if not checkpoints.everyone(self._folder):
                self._run_folder.cut_metrics(0)
                return -1
            path, damaged = checkpoints.newest_whole(self._folder)
            wrong.extend(damaged)
            return self._go_back_to(checkpoints.number(path))

        self._everywhere(run, choose)
        return wrong

    def roll_back(self, run: Progress) -> None:
        """Put a run back to where it was still right: before the iterations that show the fall."""

        def choose() -> int:
            numbers = self._numbers()
            good = [number for number in numbers if number <= run.iterations - SPAN]
            return self._go_back_to(max(good, default=min(numbers)))

        self._everywhere(run, choose)

    def _everywhere(self, run: Progress, choose: Callable[[], int]) -> None:
        """Restore what rank 0 chooses, in all processes."""
        world = self._world
        chosen = world.attempt(lambda: choose() if world.rank == 0 else -1)
        chosen = world.agree(chosen)
        if chosen >= 0:
            world.attempt(lambda: self._restore(run, chosen))

    def _go_back_to(self, iteration: int) -> int:
        """Remove the checkpoints and the rows after an iteration."""
        for number in self._numbers():
            if number > iteration:
                durable.discard(checkpoints.path_of(self._folder, number))
        self._run_folder.cut_metrics(iteration)
        return iteration

    def _restore(self, run: Progress, iteration: int) -> None:
        path = checkpoints.path_of(self._folder, iteration)
        checkpoint = checkpoints.load(path, self.run_number)
        state = checkpoint.state
        session = run.session
        if state.tasks != digest(session.tasks, session.heldout):
            raise InputError("data: expected the prompts that the run began with, got others")
        before = first_evaluation.among(checkpoint.tensors)
        try:
            session.trainer.restore(checkpoint.tensors)
        except ValueError as error:
            raise StorageError(printable(f"{path}: {error}")) from error
        if session.trainer.iteration != iteration:
            raise StorageError(printable(f"{path}: its tensors are of another iteration"))
        rows = reading.read_metrics(self._run_folder.path)
        if [row.iteration for row in rows] != list(range(1, iteration + 1)):
            where = self._run_folder.path / "metrics.jsonl"
            raise StorageError(printable(f"{where}: expected iterations 1 to {iteration}"))
        if before:
            run.before = first_evaluation.figures_of(before, state.quality)
        run.spent = Counts(**{name: float(value or 0) for name, value in state.spent.items()})
        run.seconds = {name: float(value or 0) for name, value in state.seconds.items()}
        run.alarms = list(state.alarms)
        run.rollbacks = state.rollbacks
        self._saved = iteration
        run.resume(rows)

    def _sweep(self) -> None:
        """Remove what a killed process left half written."""
        for name in ("", "samples", "trees", "checkpoints"):
            durable.sweep(self._run_folder.path / name)

    def _numbers(self) -> list[int]:
        return [checkpoints.number(path) for path in checkpoints.everyone(self._folder)]

    def _kept(self, run: Progress) -> set[int]:
        """The last ones, the best by held-out reward, and one that a run can go back to."""
        train = run.session.config.train
        numbers = self._numbers()
        kept = set(numbers[-train.keep_last :])
        if train.keep_best:
            scores = self._heldout(numbers)
            kept |= {max(scores, key=lambda number: scores[number])} if scores else set()
        if train.guard == "rollback":
            # those that are too young to be known as good, and the youngest that is old enough
            good = [number for number in numbers if number <= run.iterations - SPAN]
            oldest = max(good, default=min(numbers))
            kept |= {number for number in numbers if number >= oldest}
        return kept

    def _is_best(self, heldout: float) -> bool:
        scores = self._heldout(self._numbers())
        return heldout > max(scores.values(), default=float("-inf"))

    def _heldout(self, numbers: Sequence[int]) -> dict[int, float]:
        scores = {}
        for number in numbers:
            state = checkpoints.read_state(checkpoints.path_of(self._folder, number))
            if state.heldout is not None:
                scores[number] = float(state.heldout)
        return scores


def digest(train: Sequence[Task], heldout: Sequence[Task]) -> str:
    """The sha256 of all that is trained on and held out, in its order."""
    checksum = hashlib.sha256()
    for task in (*train, None, *heldout):
        text = "null" if task is None else json.dumps(asdict(task), default=str, sort_keys=True)
        checksum.update(f"{text}\n".encode("utf-8", "surrogatepass"))
    return checksum.hexdigest()
