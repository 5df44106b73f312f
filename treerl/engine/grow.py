"""The tree builder: all live nodes of a step go through the network in chunks of one row count."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from typing import Self

import numpy as np
import torch
from torch import Tensor

from treerl.engine import noise
from treerl.engine.advance import Level, Move, advance, moves, nan, walk
from treerl.engine.coupling import Coupling, Independent
from treerl.engine.env import Env, no_leap
from treerl.engine.idle import idle
from treerl.engine.peers import Alone, Peers
from treerl.engine.roots import Roots
from treerl.engine.tree import State, Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.errors import NumericsError


def grow(
    env: Env,
    roots: Roots,
    spec: TreeSpec | Sequence[TreeSpec],
    rows: int,
    check_interrupt: Callable[[], None] = lambda: None,
    previews: bool = False,
    peers: Peers | None = None,
    coupling: Coupling | None = None,
) -> Tree:
    """The forest of `roots` under one spec for all trees, or one for each.

    All specs are stochastic at the same steps. `rows` states go through every forward;
    `check_interrupt` may raise to stop: it is called before every forward, or once a step where
    `peers` with different numbers of forwards stop together. With `previews` the x̂₀ of the
    levels that `TreeSpec.previewed` names are kept. `coupling` draws the noise of siblings; by
    default each draws its own. No roots give an empty forest of one spec.
    """
    peers = peers or Alone()
    specs = (spec,) * max(len(roots), 1) if isinstance(spec, TreeSpec) else tuple(spec)
    if len(specs) != max(len(roots), 1):
        raise ValueError(f"expected a spec for each of {len(roots)} trees, got {len(specs)}")
    steps = moves(specs, previews)
    first = specs[0]
    tails = [walk(first, strides) for strides in first.walks]
    if not env.leaps and any(move.leaps for move in chain(steps, *tails)):
        raise no_leap(env)
    state = _start(env, roots)
    levels = [_first(state, roots)]
    children = torch.tensor([tree.children for tree in specs])  # [R, moves]
    finishes = []
    with torch.no_grad(), _Walk(env) as walking:
        go = _Go(env, walking, rows, check_interrupt, peers, coupling or Independent())
        fork = state
        for number, move in enumerate(steps):
            counts = children[levels[-1].root, number]
            state, level = go(state, levels[-1], counts, move)
            if not first.kept[number + 1]:
                level = replace(level, x=level.x[:0].clone())  # a view would hold it
            levels.append(level)
            if number + 1 == first.tail:
                fork = state
        for tail in tails:
            finishes.append(_finished(go, fork, levels[first.tail], tail))
    return _assemble(roots, first, levels, finishes, previews)


@dataclass(frozen=True)
class _Go:
    """Moves all nodes of a level, in step with the other processes."""

    env: Env
    walking: "_Walk"
    rows: int
    check_interrupt: Callable[[], None]
    peers: Peers
    coupling: Coupling

    def __call__(
        self, state: State, level: Level, counts: Tensor, move: Move
    ) -> tuple[State, Level]:
        check = self.check_interrupt
        if self.peers.size > 1:  # their numbers of forwards differ
            check()
            check = _nothing
        forwards = -(-len(level.key) // self.rows)
        most = self.peers.forwards(forwards)
        self.walking.on(move.stochastic)
        state, grown = advance(
            self.env, state, level, counts, move, self.rows, check, self.coupling
        )
        with self.peers.idle():
            for _ in range(forwards, most):
                self.env.policy(idle(self.env, self.rows, move.step), move.stochastic)
        _refuse_non_finite(grown.x, move.step, self.peers)
        return state, grown


def _finished(go: _Go, state: State, level: Level, tail: Sequence[Move]) -> Tensor:
    """Where the tails lead that begin at a level."""
    for move in tail:
        state, level = go(state, level, torch.ones(len(level.key), dtype=torch.int64), move)
    return level.x


def _start(env: Env, roots: Roots) -> State:
    draws = noise.normal(roots.start, env.shape, torch.float32, env.device)
    start = env.initial(roots.task.to(env.device), draws)
    # steps and tasks are index arithmetic: read on a device, they would hold up every forward
    x = start.x.to(env.latent_device, env.latent_dtype)
    return State(x, start.step.cpu(), start.task.cpu())


def _first(state: State, roots: Roots) -> Level:
    no_parent = torch.full((len(roots),), Tree.NO_PARENT)
    return Level(state.x, no_parent, nan(len(roots)), roots.key, torch.arange(len(roots)))


def _assemble(
    roots: Roots,
    spec: TreeSpec,
    levels: Sequence[Level],
    finishes: Sequence[Tensor],
    previews: bool,
) -> Tree:
    sizes = tuple(len(level.key) for level in levels)
    stochastic = (False, *spec.stochastic)
    slot = []
    filled = 0
    for size, keep in zip(sizes, spec.kept, strict=True):
        rows = torch.arange(filled, filled + size)
        slot.append(rows if keep else torch.full((size,), Tree.DROPPED))
        filled += size if keep else 0
    parent = [levels[0].parent]
    begin = 0  # of the level before
    for level, size in zip(levels[1:], sizes, strict=False):
        parent.append(level.parent + begin)
        begin += size
    kept = [level.x for level, keep in zip(levels, spec.kept, strict=True) if keep]
    sampled = [torch.full((size,), here) for size, here in zip(sizes, stochastic, strict=True)]
    number = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    previewed = None
    x0 = [level.x0 for level in levels if level.x0 is not None]
    if previews:
        here = torch.tensor(spec.previewed)
        previewed = here[number].nonzero().flatten()
    return Tree(
        x=torch.cat(kept),
        slot=torch.cat(slot),
        task=torch.cat([roots.task[level.root] for level in levels]),
        parent=torch.cat(parent),
        log_prob=torch.cat([level.log_prob.double() for level in levels]),
        stochastic=torch.cat(sampled),
        step=torch.tensor(spec.at)[number],
        key=torch.cat([torch.from_numpy(level.key.view(np.int64)) for level in levels]),
        sizes=sizes,
        previewed=previewed,
        x0=torch.cat(x0) if previews else None,
        granularities=spec.granularities,
        finishes=tuple(finishes),
    )


class _Walk:
    """Holds `env.walking` open over levels that are alike: opening it may cost."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._open = ExitStack()
        self._stochastic: bool | None = None

    def __enter__(self) -> Self:
        return self

    def on(self, stochastic: bool) -> None:
        if stochastic != self._stochastic:
            self._open.close()
            self._open.enter_context(self._env.walking(stochastic))
            self._stochastic = stochastic

    def __exit__(self, *error: object) -> None:
        self._open.close()


def _nothing() -> None:
    return


def _refuse_non_finite(x: Tensor, step: int, peers: Peers) -> None:
    """`NumericsError` in all processes, which may then go back together."""
    finite = torch.isfinite(x).flatten(1).all(1).cpu()
    number = 0 if bool(finite.all()) else int((~finite).nonzero()[0]) + 1
    number = peers.agree(number)
    if number:
        raise NumericsError(
            f"rollout: step {step}, child {number - 1} of its level: the latent is not finite"
        )
