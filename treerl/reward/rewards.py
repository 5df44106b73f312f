"""All rewards of a run as one value: names, weights, checks, retries, what a failure means."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.errors import InputError, RewardError, printable
from treerl.reward.call import Scorer, begin, close, load, measure, rate, score, validate
from treerl.reward.children import Children
from treerl.reward.contract import Reward
from treerl.reward.interrupt import check_interrupt as ask, interruptible

T = TypeVar("T")
OnBadReward = Literal["stop", "retry", "drop_tree"]


def _never() -> None:
    return


class Rewards:
    """K rewards, scored together.

    rewards = Rewards({"blue": blue, "hps": hps}, weights={"blue": 0.2, "hps": 0.8})
    scores = rewards(samples)  # [N, 2]
    """

    def __init__(
        self,
        scorers: Mapping[str, Scorer],
        weights: Mapping[str, float] | None = None,
        on_bad_reward: OnBadReward = "stop",
        retries: int = 2,
        check_interrupt: Callable[[], None] = _never,
    ) -> None:
        """Rewards, or functions of samples, by name; a weight that is not named is 1.

        `on_bad_reward` says what a failed call or a score that is no finite number means: `stop`
        raises; `retry` first repeats the call `retries` times; `drop_tree` does so, too, and then
        marks the samples without a score by NaN. `check_interrupt` may raise to end a long wait.
        """
        unknown = sorted(set(weights or {}) - set(scorers))
        if unknown:
            raise InputError(f"rewards: a weight of {unknown[0]!r}, which is none of the rewards")
        self.scorers = dict(scorers)
        self.names = tuple(self.scorers)
        column = [float((weights or {}).get(name, 1.0)) for name in self.names]
        self.weights = torch.tensor(column, dtype=torch.float64)  # [K]
        self.on_bad_reward = on_bad_reward
        self.retries = retries
        self.check_interrupt = check_interrupt
        self._children = Children()
        self._loaded: set[str] = set()

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N, K]`, float64 on the CPU, all finite (NaN in a row only with `drop_tree`)."""
        self.load()
        columns = []
        with interruptible(self.check_interrupt), self._children.noted():
            if len(self.scorers) > 1:  # servers work side by side, and beside what is here
                for name, scorer in self.scorers.items():
                    if isinstance(scorer, Reward):
                        begin(name, scorer, samples)
            for name, scorer in self.scorers.items():
                ask()
                columns.append(self._column(name, scorer, samples))
            ask()
        if not columns:
            return torch.empty(len(samples), 0, dtype=torch.float64)
        return torch.stack(columns, dim=1)

    def total(self, scores: Tensor) -> Tensor:
        """The weighted sum `[N]` of scores `[N, K]`."""
        return scores @ self.weights.to(scores)

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        """The further figures of all rewards, each `[N]`; NaN where a reward has none for a sample.

        A name that two rewards use is the first one's; the second's is called `reward.name`.
        """
        self.load()
        figures: dict[str, Tensor] = {}
        with interruptible(self.check_interrupt), self._children.noted():
            for name, scorer in self.scorers.items():
                if isinstance(scorer, Reward):
                    for title, column in self._figures(name, scorer, samples).items():
                        figures[f"{name}.{title}" if title in figures else title] = column
        return figures

    def load(self) -> None:
        """Lets each reward read what it needs, once; the first call does so, too.

        `InputError` names the one that cannot.
        """
        with interruptible(self.check_interrupt):
            for name, scorer in self.scorers.items():
                if isinstance(scorer, Reward) and name not in self._loaded:
                    load(name, scorer)
                    self._loaded.add(name)

    def validate_tasks(self, tasks: Sequence[Task | str]) -> None:
        """`InputError` names the reward and the first task that it cannot score."""
        rows = [Task.of(task) for task in tasks]
        with interruptible(self.check_interrupt), self._children.noted():
            for name, scorer in self.scorers.items():
                if not isinstance(scorer, Reward):
                    continue
                try:
                    validate(name, scorer, rows)
                except InputError as error:
                    raise InputError(f"rewards.{name}: {printable(error)}") from error

    def close(self) -> None:
        """Ends the processes and connections of all rewards; `RewardError` names one that fails.

        A process that a reward started in a call and did not end is killed.

        It is not raised while another error is on its way, which says more.
        """
        failed = None
        for name, scorer in self.scorers.items():
            if isinstance(scorer, Reward):
                error = close(name, scorer)
                failed = failed or error
        self._children.end()
        if failed is not None and sys.exception() is None:
            raise failed

    def _column(self, name: str, scorer: Scorer, samples: Samples) -> Tensor:
        if self.on_bad_reward == "stop":
            return score(name, scorer, samples)
        if self.on_bad_reward == "retry":
            return self._patiently(lambda: score(name, scorer, samples))
        try:
            return self._patiently(lambda: rate(name, scorer, samples))
        except RewardError:
            if len(samples) == 1:
                return torch.full((1,), math.nan, dtype=torch.float64)
        # one sample may break the call of all: asked one by one, the others keep their scores
        singles = [samples.take(torch.tensor([row])) for row in range(len(samples))]
        return torch.cat([self._column(name, scorer, single) for single in singles])

    def _figures(self, name: str, reward: Reward, samples: Samples) -> dict[str, Tensor]:
        """Its measures, asked for as its scores are; none when they fail with `drop_tree`."""
        if self.on_bad_reward == "stop":
            return measure(name, reward, samples)
        try:
            return self._patiently(lambda: measure(name, reward, samples))
        except RewardError:
            if self.on_bad_reward == "retry":
                raise
        return {}

    def _patiently(self, call: Callable[[], T]) -> T:
        for _ in range(self.retries):
            try:
                return call()
            except RewardError:
                ask()
        return call()
