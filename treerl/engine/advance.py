"""One move of all live nodes: sampled children, a deterministic step, or a leap over several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from treerl.engine import noise
from treerl.engine.chunks import chunks
from treerl.engine.coupling import CoupledDraws, Coupling, siblings
from treerl.engine.env import Env, Slope
from treerl.engine.policy import Policy
from treerl.engine.tree import State
from treerl.engine.tree_spec import TreeSpec
from treerl.errors import InputError


@dataclass(frozen=True)
class Level:
    """What one move adds to the forest."""

    x: Tensor  # [M, ...]
    parent: Tensor  # [M] index within the level before
    log_prob: Tensor  # [M], NaN where the move was not sampled
    key: noise.Keys  # [M]
    root: Tensor  # [M] number of the tree
    x0: Tensor | None = None  # of the level before, where it is kept
    slope: Slope | None = None  # [M] of the move that led here, where the next looks back at it


@dataclass(frozen=True)
class Move:
    """How all live nodes of a level go on."""

    step: int  # steps taken before
    stochastic: bool
    stride: int
    order: int  # of the solver in the tail; 1 elsewhere
    previewed: bool  # whether the x̂₀ of the nodes that it starts from is kept

    @property
    def leaps(self) -> bool:
        """Whether it is more than the environment's own single step."""
        return self.stride > 1 or self.order > 1


@dataclass(frozen=True)
class _Part:
    """What a chunk of nodes brings."""

    x: Tensor
    x0: Tensor | None  # where it is kept: of a whole level they would need much memory
    log_prob: Tensor | None = None  # where the move was sampled
    slope: Tensor | None = None


def moves(specs: Sequence[TreeSpec], previews: bool) -> list[Move]:
    """The moves that all trees of a forest make together; `ValueError` if they differ."""
    first = specs[0]
    for spec in specs:
        if (spec.strides, spec.order, spec.walks) != (first.strides, first.order, first.walks):
            raise ValueError("trees of one forest must take the same strides")
        if spec.stochastic != first.stochastic:
            raise ValueError("trees of one forest must be stochastic at the same steps")
    together = []
    for number, stride in enumerate(first.strides):
        order = first.order if number >= first.tail else 1
        previewed = previews and first.previewed[number]
        step = first.at[number]
        together.append(Move(step, first.stochastic[number], stride, order, previewed))
    return together


def walk(spec: TreeSpec, strides: Sequence[int]) -> list[Move]:
    """The moves of one tail by these strides."""
    step = spec.at[spec.tail]
    taken = []
    for stride in strides:
        taken.append(Move(step, False, stride, spec.order, previewed=False))
        step += stride
    return taken


def advance(
    env: Env,
    state: State,
    level: Level,
    counts: Tensor,
    move: Move,
    rows: int,
    check_interrupt: Callable[[], None],
    coupling: Coupling,
) -> tuple[State, Level]:
    """The next level and its states; the nodes of `level` have `counts` `[M]` children each."""
    born = siblings(level.key, counts.numpy(), env.device)
    first = np.append(0, np.cumsum(counts.numpy()))  # node i's children: first[i] ... first[i + 1]
    parts = [_Part(state.x[:0], state.x[:0])]
    low = 0
    for index, real in chunks(len(level.key), rows):
        check_interrupt()
        chunk = state.take(index)
        high = low + real
        if move.leaps:
            parts.append(_leap(env, chunk, level.slope, index, real, move))
        else:
            policy = env.policy(chunk, move.stochastic)
            draws = CoupledDraws(coupling, born.take(slice(first[low], first[high])))
            parts.append(_act(env, policy, draws, counts[low:high], move))
        low = high
    parent = torch.arange(len(counts)).repeat_interleave(counts)
    x = torch.cat([part.x.to(env.latent_device) for part in parts])
    grown = Level(
        x=x,
        parent=parent,
        log_prob=_log_prob(parts, len(x)),
        key=born.keys,
        root=level.root[parent],
        x0=_joined([part.x0 for part in parts]) if move.previewed else None,
        slope=_slope(parts, move),
    )
    parents = state.take(parent)
    if move.leaps:
        return State(x, parents.step + move.stride, parents.task), grown
    return env.transition(parents, x), grown


def nan(count: int) -> Tensor:
    """The log-probabilities of edges that were not sampled."""
    return torch.full((count,), float("nan"))


def _act(env: Env, policy: Policy, draws: CoupledDraws, counts: Tensor, move: Move) -> _Part:
    real = len(counts)
    x0 = _kept(env, policy.denoised, real) if move.previewed else None
    if not move.stochastic:
        return _Part(policy.mode[:real].to(env.latent_dtype), x0)
    owner = torch.arange(real).repeat_interleave(counts)
    edge = policy.take(owner.to(env.device, non_blocking=True))
    action = edge.sample(draws, env.latent_dtype)
    return _Part(action, x0, edge.log_prob(action))


def _leap(
    env: Env, chunk: State, before: Slope | None, index: Tensor | slice, real: int, move: Move
) -> _Part:
    if before is not None:
        before = before.take(index)
    leap = env.leap(chunk, move.stride, before)
    x0 = _kept(env, leap.x0, real) if move.previewed else None
    slope = leap.slope[:real] if move.order > 1 else None
    return _Part(leap.x[:real].to(env.latent_dtype), x0, slope=slope)


def _log_prob(parts: Sequence[_Part], count: int) -> Tensor:
    """Those of a level `[M]`, brought to the CPU together: a device is waited for once."""
    sampled = [part.log_prob for part in parts if part.log_prob is not None]
    return torch.cat(sampled).cpu() if sampled else nan(count)


def _slope(parts: Sequence[_Part], move: Move) -> Slope | None:
    """What the next move looks back at; None for an empty forest, too."""
    if all(part.slope is None for part in parts):
        return None
    return Slope(_joined([part.slope for part in parts]), move.stride)


def _joined(columns: Sequence[Tensor | None]) -> Tensor:
    """What the parts have, as one."""
    return torch.cat([column for column in columns if column is not None])


def _kept(env: Env, x0: Tensor | None, real: int) -> Tensor:
    """The previews of a chunk, where the latents of the tree are kept."""
    if x0 is None:
        what = f"{type(env).__name__}'s policy says nothing about the finished sample"
        raise InputError(f"tree.previews: expected false, as {what}, got true")
    return x0[:real].to(env.latent_device, env.latent_dtype)
