"""Held-out tasks, drawn by the full-step ODE from noise that stays the same before and after."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from treerl.engine import noise
from treerl.engine.branching import ode
from treerl.engine.env import Env
from treerl.engine.grow import grow
from treerl.engine.noise import Stream
from treerl.engine.peers import Alone, Peers
from treerl.engine.roots import make_roots
from treerl.engine.scoring import decoded
from treerl.engine.task import Samples
from treerl.engine.tree import Tree
from treerl.reward.rewards import Rewards
from treerl.run.quality import means, qualities
from treerl.run.showing import SHOWN, bring


@dataclass(frozen=True)
class Figures:
    """What held-out samples are worth."""

    scores: Tensor  # [M, K] of the rewards that are trained on
    total: Tensor  # [M] their weighted sum
    measures: dict[str, Tensor]  # each [M], further figures of the rewards
    watched: dict[str, Tensor]  # each [M], scores of the rewards that are only watched
    quality: dict[str, float]

    def summary(self) -> dict[str, Any]:
        """The means, as the manifest keeps them."""
        return {
            "reward": _mean(self.total),
            "measures": {name: _mean(value) for name, value in self.measures.items()},
            "watched": {name: _mean(value) for name, value in self.watched.items()},
            "quality": self.quality,
            "samples": len(self.total),
        }


@dataclass(frozen=True)
class Evaluation(Figures):
    """What was drawn and what it is worth."""

    samples: Samples  # [S] all M, or some: of several processes, or where they take much memory
    rows: Tensor | None = None  # [S] which of the M rows `samples` are; None is all of them

    def row(self, place: int) -> int:
        """The row among M of `samples[place]`."""
        return place if self.rows is None else int(self.rows[place])


def evaluate(
    env: Env,
    rewards: Rewards,
    tasks: Sequence[Any],
    samples_per_task: int = 1,
    watched: Rewards | None = None,
    seed: int = 0,
    rows: int = 24,
    check_interrupt: Callable[[], None] = lambda: None,
    peers: Peers | None = None,
) -> Evaluation:
    """`samples_per_task` samples of each; noise is a function of (seed, task's place, sample).

    Of several processes each draws whole tasks; the figures are those of all samples in each.
    """
    peers = peers or Alone()
    peers.phase("evaluate")
    env = env.with_tasks(tasks)
    keys = [noise.key(seed, Stream.EVALUATION, row) for row in range(len(tasks))]
    roots = make_roots(keys, samples_per_task)
    share = peers.share(len(tasks))
    rows_here = range(share.start * samples_per_task, share.stop * samples_per_task)
    part = roots.part(rows_here)
    tree = grow(env, part, ode(env.steps), rows, check_interrupt, peers=peers)
    shown = torch.arange(0, len(roots), samples_per_task)[:SHOWN]
    columns, samples, here = _scored(env, tree, rows_here.start, shown, rewards, watched)
    columns = _joined(peers.gather(columns))
    every = Samples(samples.images, tuple(env.tasks[row] for row in roots.task), roots.task)
    samples, here = bring(samples, here, shown, every, peers)
    return Evaluation(
        samples=samples,
        scores=columns["scores"],
        total=rewards.total(columns["scores"]),
        measures=_below("measures", columns),
        watched=_below("watched", columns),
        quality=means(_below("quality", columns)),
        rows=None if len(here) == len(roots) and peers.size == 1 else here,
    )


def _scored(
    env: Env,
    tree: Tree,
    first: int,
    shown: Tensor,
    rewards: Rewards,
    watched: Rewards | None,
) -> tuple[dict[str, Tensor], Samples, Tensor]:
    """The figures of all leaves, and samples with the rows that they are, counted from `first`.

    Those are all of them, or the `shown` ones where the samples are too large to be held together.
    """
    nothing = Samples(torch.empty(0), (), torch.empty(0, dtype=torch.int64))
    if not len(tree):
        columns = {"scores": torch.empty(0, len(rewards.names), dtype=torch.float64)}
        return columns, nothing, torch.empty(0, dtype=torch.int64)
    parts = []
    kept = []
    rows = []
    for places, samples in decoded(env, tree.at(tree.leaves)):
        parts.append(_columns(rewards, watched, samples))
        here = places + first
        if len(places) < len(tree.leaves):
            wanted = torch.isin(here, shown)
            samples = samples.take(wanted.nonzero().flatten())
            here = here[wanted]
        kept.append(samples)
        rows.append(here)
    return _joined(parts), Samples.cat(kept), torch.cat(rows)


def _columns(rewards: Rewards, watched: Rewards | None, samples: Samples) -> dict[str, Tensor]:
    """Everything that is said of these samples, each column `[S, ...]` under its kind and name."""
    columns = {"scores": rewards(samples)}
    tables = {
        "measures": rewards.measures(samples),
        "watched": _by_name(watched, samples),
        "quality": qualities(samples.images, samples.group),
    }
    for kind, table in tables.items():
        columns |= {f"{kind}.{name}": column for name, column in table.items()}
    return columns


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The columns of all processes; NaN where one of them had no such figure."""
    names = dict.fromkeys(name for part in parts for name in part)
    joined = {}
    for name in names:
        column = []
        for part in parts:
            nothing = torch.full((len(part["scores"]),), torch.nan, dtype=torch.float64)
            column.append(part.get(name, nothing))
        joined[name] = torch.cat(column)
    return joined


def _below(kind: str, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The columns of a kind by their own names."""
    prefix = f"{kind}."
    return {
        name.removeprefix(prefix): column
        for name, column in columns.items()
        if name.startswith(prefix)
    }


def _by_name(watched: Rewards | None, samples: Samples) -> dict[str, Tensor]:
    if watched is None:
        return {}
    return dict(zip(watched.names, watched(samples).unbind(1), strict=True))


def _mean(value: Tensor) -> float:
    """The mean of what could be scored or measured; NaN marks a sample that could not."""
    return float(torch.nanmean(value.double()))
