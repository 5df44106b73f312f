"""The tree builder: all live nodes of a step go through the network together, in chunks of one fixed row count."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from treerl.engine import noise
from treerl.engine.branching import Shape
from treerl.engine.env import Env
from treerl.engine.kernel import Gaussian
from treerl.engine.tree import State, Tree
from treerl.errors import NumericsError


@dataclass(frozen=True)
class Roots:
    """Where the trees of a rollout start."""

    prompt: Tensor  # [R] int64, row of the prompt
    key: noise.Keys  # [R] noise key of the tree
    start: noise.Keys  # [R] noise key of the initial latent; equal keys start from equal noise


@dataclass(frozen=True)
class _Level:
    """What one step adds to the forest."""

    x: Tensor  # [M, ...]
    parent: Tensor  # [M] index within the level before
    log_prob: Tensor  # [M]
    key: noise.Keys  # [M]


def plant(prompts: list[noise.Keys], roots: int, shared_noise: bool = False) -> Roots:
    """`roots` trees for each prompt key `[1]`; with `shared_noise` the trees of a prompt start from one noise."""
    keys = np.concatenate([noise.children(one, roots) for one in prompts])
    # the initial latent is drawn from a stream of its own: child 0 of the tree's key is the first branch's stream
    start = np.repeat(np.concatenate(prompts), roots) if shared_noise else keys
    return Roots(torch.arange(len(prompts)).repeat_interleave(roots), keys, noise.mix(start, 2**32))


def chunks(count: int, rows: int) -> Iterator[tuple[Tensor, int]]:
    """Indices `[rows]` that cover 0 ... count - 1, and how many of each are real: the last is padded with repeats.

    One row count for every forward means one graph, no recompilation, and the same arithmetic on replay.
    """
    for low in range(0, count, rows):
        index = torch.arange(low, low + rows)
        yield index.clamp(max=count - 1), min(rows, count - low)


def grow(
    env: Env, roots: Roots, shape: Shape, rows: int, poll: Callable[[], None] = lambda: None
) -> Tree:
    """The forest of `roots` under `shape`, with `rows` states in every forward; `poll` may raise to stop."""
    store = env.stored_on
    draws = noise.normal(roots.start, env.shape, torch.float32, env.device)
    start = env.initial(roots.prompt.to(env.device), draws)
    state = State(start.x.to(store, env.storage), start.step.to(store), start.prompt.to(store))
    levels = [
        _Level(
            state.x,
            torch.full((len(roots.key),), Tree.NO_PARENT),
            _nothing(len(roots.key)),
            roots.key,
        )
    ]
    with torch.no_grad():
        for count, stochastic in zip(shape.children, shape.stochastic, strict=True):
            level = _advance(env, state, levels[-1].key, count, stochastic, rows, poll)
            state = env.transition(state.take(level.parent.to(store)), level.x)
            levels.append(level)
    return _assemble(roots, shape, levels)


def _advance(
    env: Env,
    state: State,
    key: noise.Keys,
    count: int,
    stochastic: bool,
    rows: int,
    poll: Callable[[], None],
) -> _Level:
    keys = noise.children(key, count)
    x, log_prob = [], []
    for index, real in chunks(len(key), rows):
        poll()
        policy = env.policy(state.take(index.to(env.stored_on)), stochastic)
        low = int(index[0])
        action, scored = _act(
            env, policy, keys[low * count : (low + real) * count], real, count, stochastic
        )
        _refuse_non_finite(action, int(state.step[0]), low)
        x.append(action.to(env.stored_on))
        log_prob.append(scored)
    parent = torch.arange(len(key)).repeat_interleave(count)
    return _Level(torch.cat(x), parent, torch.cat(log_prob), keys)


def _act(
    env: Env, policy: Gaussian, keys: noise.Keys, real: int, count: int, stochastic: bool
) -> tuple[Tensor, Tensor]:
    if not stochastic:
        return policy.mean[:real].to(env.storage), _nothing(real)
    edge = policy.take(torch.arange(real, device=env.device).repeat_interleave(count))
    action = edge.sample(noise.normal(keys, env.shape, edge.mean.dtype, env.device), env.storage)
    return action, edge.log_prob(action).cpu()


def _assemble(roots: Roots, shape: Shape, levels: list[_Level]) -> Tree:
    sizes = tuple(len(level.key) for level in levels)
    stochastic = (False, *shape.stochastic)
    # a latent is read again as the parent or the child of a sampled edge, and at the leaves
    kept = [into or out for into, out in zip(stochastic, (*shape.stochastic, True), strict=True)]
    offset = [sum(sizes[:step]) for step in range(len(sizes))]
    slot, filled = [], 0
    for size, keep in zip(sizes, kept, strict=True):
        slot.append(
            torch.arange(filled, filled + size) if keep else torch.full((size,), Tree.DROPPED)
        )
        filled += size if keep else 0
    parents = [level.parent + offset[step - 1] for step, level in enumerate(levels) if step]
    prompt = [roots.prompt]
    for level in levels[1:]:
        prompt.append(prompt[-1][level.parent])
    return Tree(
        x=torch.cat([level.x for level, keep in zip(levels, kept, strict=True) if keep]),
        slot=torch.cat(slot),
        prompt=torch.cat(prompt),
        parent=torch.cat([levels[0].parent, *parents]),
        log_prob=torch.cat([level.log_prob.double() for level in levels]),
        stochastic=torch.cat(
            [torch.full((size,), sampled) for size, sampled in zip(sizes, stochastic, strict=True)]
        ),
        step=torch.cat([torch.full((size,), step) for step, size in enumerate(sizes)]),
        key=torch.cat([torch.from_numpy(level.key.view(np.int64)) for level in levels]),
        sizes=sizes,
    )


def _nothing(count: int) -> Tensor:
    return torch.full((count,), float("nan"))


def _refuse_non_finite(x: Tensor, step: int, low: int) -> None:
    good = torch.isfinite(x).flatten(1).all(1)
    if not bool(good.all()):
        row = low + int((~good).nonzero()[0])
        raise NumericsError(
            f"rollout: step {step}, child {row} of its level: the latent is not finite"
        )
