"""What a run prints while it goes on: a live line in a terminal, plain lines elsewhere."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from treerl.engine.step import Step
from treerl.errors import printable
from treerl.run.evaluate import Evaluation
from treerl.run.files import MetricsRow
from treerl.run.run import Listener, Run

_LINES = 20  # at most so many plain lines for the iterations of a run


class Display(Listener):
    """Shows a run in a terminal or a log."""

    def __init__(self, console: Console, folder: str) -> None:
        self._console = console
        self._folder = folder
        self._trend = math.nan
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        hidden = not console.is_terminal
        self._bar = Progress(*columns, console=console, transient=True, disable=hidden)

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def began(self, run: Run) -> None:
        session = run.session
        config = session.config
        rewards = session.rewards
        pairs = zip(rewards.names, rewards.weights.tolist(), strict=True)
        scored = ", ".join(f"{name} × {weight:g}" for name, weight in pairs)
        parameters = session.trainer.optimizer.param_groups[0]["params"]
        trainable = sum(parameter.numel() for parameter in parameters)
        total = session.plan.total()
        self.say(
            f"{session.backbone.title} · {session.algorithm.name} · reward {scored} · "
            f"{trainable:,} trainable weights ({config.train.trainable}) · "
            f"{len(session.tasks)} training and {len(session.heldout)} held-out prompts"
        )
        self.say(
            f"plan: {config.train.iterations} iterations, {total.sampling_forwards:,.0f} sampling "
            f"and {total.update_forwards:,.0f} update forwards expected · folder {self._folder}"
        )
        if session.backbone.random_weights:
            self.say("random weights: the run can be taken up again, but nothing can be exported")
        if run.iterations:
            self.say(f"taken up again after iteration {run.iterations}")
        self._bar.start()
        self._task = self._bar.add_task(
            "training", total=config.train.iterations, figures="", visible=False
        )

    def resumed(self, run: Run, rows: Sequence[MetricsRow]) -> None:
        self._trend = math.nan
        for row in rows:
            self._follow(math.nan if row.reward is None else row.reward)

    def replayed(self, run: Run, noise: float) -> None:
        clip = getattr(run.session.algorithm.objective, "clip_range", None)
        beside = "" if clip is None else f" (clip range {clip:g})"
        self.say(f"replay: ratios differ from 1 by {noise:.2g} through rounding{beside}")

    def evaluated(self, run: Run, when: str, evaluation: Evaluation) -> None:
        summary = evaluation.summary()
        figures = {"reward": summary["reward"], **summary["measures"]}
        for name, value in summary["watched"].items():
            figures[f"{name} (watched)"] = value
        figures |= summary["quality"]
        text = " · ".join(f"{name} {value:.3f}" for name, value in figures.items())
        self.say(f"held-out {when}: {text} · {summary['samples']} samples")

    def stepped(self, run: Run, step: Step, row: dict[str, Any]) -> None:
        reward = float(row["reward"])
        before = self._trend
        self._follow(reward)
        arrow = _arrow(before, self._trend)
        forwards = run.spent.forwards
        figures = (
            f"reward {reward:.3f} · trend {self._trend:.3f} {arrow} · {forwards:,.0f} forwards"
        )
        number = int(row["iteration"])
        iterations = run.session.config.train.iterations
        if self._console.is_terminal:
            self._bar.update(self._task, completed=number, figures=figures, visible=True)
            return
        every = max(1, -(-iterations // _LINES))
        if number % every == 0 or number in (1, iterations):
            left = run.seconds["train"] / run.iterations * (iterations - number)
            self.say(f"iteration {number:>4}/{iterations} · {figures} · {left:.0f} s left")

    def _follow(self, reward: float) -> None:
        before = self._trend
        self._trend = reward if math.isnan(before) else 0.9 * before + 0.1 * reward

    def alarmed(self, run: Run, text: str) -> None:
        self.say(f"ALARM {text}")

    def ended(self, run: Run, error: BaseException | None) -> None:
        self._bar.stop()


def _arrow(before: float, after: float) -> str:
    if math.isnan(before) or abs(after - before) < 1e-4:
        return "→"
    return "↗" if after > before else "↘"
