"""A session: everything that a configuration names, made and fitted together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from treerl.backbone.contract import Backbone
from treerl.backbone.env import BackboneEnv
from treerl.config.schema import Config
from treerl.engine import noise
from treerl.engine.algorithm import Algorithm
from treerl.engine.fitting import fitting
from treerl.engine.noise import Stream
from treerl.engine.replay import refuse_noise, replay_noise
from treerl.engine.step import Step
from treerl.engine.task import Task
from treerl.engine.trainer import Trainer
from treerl.reward.rewards import Rewards
from treerl.run.drift import refuse_drift
from treerl.run.evaluate import Evaluation, evaluate
from treerl.run.plan import Plan
from treerl.run.shard import readable


@dataclass(frozen=True)
class Session:
    """What `treerl.assemble` makes: train it, evaluate it, save it.

    session = treerl.assemble(settings={"train.iterations": 20})
    for step in session.train():
        print(step.metrics["reward"])
    print(session.evaluate().summary())
    """

    config: Config
    algorithm: Algorithm
    plan: Plan
    tasks: tuple[Task, ...]  # trained on
    heldout: tuple[Task, ...]  # evaluated on
    backbone: Backbone
    env: BackboneEnv
    rewards: Rewards
    watched: Rewards | None
    trainer: Trainer

    def train(self, iterations: int | None = None) -> Iterator[Step]:
        """Train on the tasks that the plan chooses, one step each; by default to the plan's end."""
        start = self.trainer.iteration
        end = self.config.train.iterations if iterations is None else start + iterations
        every = self.config.parallel.verify_every
        for iteration in range(start, end):
            if every and (iteration - start) % every == 0:
                self._refuse_drift(iteration)
            rows = self.plan.rows(iteration, len(self.tasks))
            path = (self.config.seed, Stream.ROLLOUT, iteration)
            keys = [noise.key(*path, turn, row) for turn, row in rows]
            yield self.trainer.iterate([self.tasks[row] for _, row in rows], keys)

    def _refuse_drift(self, iteration: int) -> None:
        groups = self.trainer.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        refuse_drift(parameters, self.trainer.peers, f"iteration {iteration + 1}")

    def evaluate(self, tasks: Sequence[Task | str] | None = None) -> Evaluation:
        """Draw held-out tasks (or these) by the full-step ODE, and score them.

        With `train.ema` the averaged weights draw them.
        """
        chosen = self.heldout if tasks is None else tuple(Task.of(task) for task in tasks)
        settings = self.config.evaluate
        steps = settings.steps or self.config.env.steps
        trainer = self.trainer
        evaluation = partial(
            evaluate,
            self.env.with_steps(steps),
            self.rewards,
            chosen,
            settings.samples_per_prompt,
            self.watched,
            self.config.seed,
            check_interrupt=trainer.check_interrupt,
            peers=trainer.peers,
        )
        with trainer.averaged():
            return fitting(trainer, "evaluation", lambda: evaluation(rows=trainer.micro_batch_size))

    def replay_noise(self) -> float:
        """How far ratios differ from 1 by rounding alone on this machine; see `docs/numerics.md`.

        `NumericsError` where that leaves the clip range of the objective.
        """
        env = self.env.with_tasks(self.tasks[:1])
        trainer = self.trainer

        def measure() -> float:
            return replay_noise(env, self.plan.support, trainer.micro_batch_size, self.config.seed)

        deviation = fitting(trainer, "forward", measure)
        refuse_noise(deviation, self.algorithm.objective)
        return deviation

    def save(self, folder: Path | str) -> None:
        """Write what was trained, as `backbone.adapter` and `treerl export` read it.

        Of several processes all call it, and rank 0 writes.
        """
        tensors = self.trainer.state()
        if self.trainer.peers.rank == 0:
            self.write(Path(folder), tensors)

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """The same of a trainer's whole state: the average of the weights, if one is kept.

        While it writes, the weights in use are the average's, and so are tensors that share them.
        """
        with self.trainer.averaged(), readable(self.backbone.denoisers, tensors):
            self.backbone.save(folder)

    def close(self) -> None:
        """End the workers of rewards."""
        self.rewards.close()
        if self.watched is not None:
            self.watched.close()
