"""The tree builder: all live nodes of a step go through the network in chunks of one row count."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from treerl.engine import noise
from treerl.engine.env import Env
from treerl.engine.idle import idle
from treerl.engine.peers import Alone, Peers
from treerl.engine.policy import KeyedDraws, Policy
from treerl.engine.tree import State, Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.errors import InputError, NumericsError


@dataclass(frozen=True)
class Roots:
    """Where the trees of a rollout start."""

    task: Tensor  # [R] int64, row of the task
    key: noise.Keys  # [R] noise key of the tree
    start: noise.Keys  # [R] key of the initial latent; equal keys start from equal noise

    def __len__(self) -> int:
        return len(self.key)

    def part(self, share: range) -> "Roots":
        """The roots of a contiguous share."""
        rows = slice(share.start, share.stop)
        return Roots(self.task[rows], self.key[rows], self.start[rows])


@dataclass(frozen=True)
class _Level:
    """What one step adds to the forest."""

    x: Tensor  # [M, ...]
    parent: Tensor  # [M] index within the level before
    log_prob: Tensor  # [M]
    key: noise.Keys  # [M]
    root: Tensor  # [M] number of the tree


def make_roots(tasks: Sequence[noise.Keys], trees: int, shared_noise: bool = False) -> Roots:
    """`trees` roots for each task's key `[1]`; `shared_noise` starts a task's from one noise."""
    keys = np.concatenate([noise.children(task, trees) for task in tasks])
    # the initial latent has a stream of its own: child 0 of the tree's key is the first branch's
    start = np.repeat(np.concatenate(tasks), trees) if shared_noise else keys
    row = torch.arange(len(tasks)).repeat_interleave(trees)
    return Roots(row, keys, noise.mix(start, 2**32))


def chunks(count: int, rows: int) -> Iterator[tuple[Tensor, int]]:
    """Indices `[rows]` that cover 0 ... count - 1, and how many of each are real.

    The last is padded with repeats: one row count for every forward means one graph, no
    recompilation, and the same arithmetic on replay. Of 5 in rows of 3: (0 1 2, 3), (3 4 4, 2).
    """
    for low in range(0, count, rows):
        index = torch.arange(low, low + rows)
        yield index.clamp(max=count - 1), min(rows, count - low)


def grow(
    env: Env,
    roots: Roots,
    spec: TreeSpec | Sequence[TreeSpec],
    rows: int,
    check_interrupt: Callable[[], None] = lambda: None,
    previews: bool = False,
    peers: Peers | None = None,
) -> Tree:
    """The forest of `roots` under one spec for all trees, or one for each.

    All specs are stochastic at the same steps. `rows` states go through every forward;
    `check_interrupt` may raise to stop: it is called before every forward, or once a step where
    `peers` with different numbers of forwards stop together. With `previews` the x̂₀ of the
    levels that `TreeSpec.previewed` names are kept. No roots give an empty forest of one spec.
    """
    peers = peers or Alone()
    together = peers.size > 1
    specs = (spec,) * max(len(roots), 1) if isinstance(spec, TreeSpec) else tuple(spec)
    check_chunk = _nothing if together else check_interrupt
    stochastic = _shared_steps(specs, len(roots))
    state = _start(env, roots)
    nothing = _nan(len(roots))
    no_parent = torch.full((len(roots),), Tree.NO_PARENT)
    levels = [_Level(state.x, no_parent, nothing, roots.key, torch.arange(len(roots)))]
    x0: list[Tensor | None] = []
    with torch.no_grad():
        for step in range(specs[0].steps):
            if together:
                check_interrupt()
            children = torch.tensor([tree.children[step] for tree in specs])
            counts = children[levels[-1].root]
            wanted = previews and specs[0].previewed[step]
            own = -(-len(levels[-1].key) // rows)
            most = peers.forwards(own)
            level, x0_level = _advance(
                env, state, levels[-1], counts, stochastic[step], rows, check_chunk, wanted
            )
            with peers.idle():
                for _ in range(own, most):
                    env.policy(idle(env, rows, step), stochastic[step])
            _refuse_non_finite(level.x, step, peers)
            state = env.transition(state.take(level.parent.to(env.latent_device)), level.x)
            levels.append(level)
            x0.append(x0_level)
    return _assemble(roots, specs[0], levels, x0 if previews else None)


def _shared_steps(specs: tuple[TreeSpec, ...], count: int) -> tuple[bool, ...]:
    if len(specs) != max(count, 1):
        raise ValueError(f"expected a spec for each of {count} trees, got {len(specs)}")
    stochastic = specs[0].stochastic
    for spec in specs:
        if spec.stochastic != stochastic:
            raise ValueError("trees of one forest must be stochastic at the same steps")
    return stochastic


def _start(env: Env, roots: Roots) -> State:
    draws = noise.normal(roots.start, env.shape, torch.float32, env.device)
    start = env.initial(roots.task.to(env.device), draws)
    device = env.latent_device
    return State(start.x.to(device, env.latent_dtype), start.step.to(device), start.task.to(device))


def _advance(
    env: Env,
    state: State,
    level: _Level,
    counts: Tensor,
    stochastic: bool,
    rows: int,
    check_interrupt: Callable[[], None],
    preview: bool,
) -> tuple[_Level, Tensor | None]:
    """The next level, and the x̂₀ of this one where they are wanted."""
    keys = noise.children(level.key, counts.numpy())
    end = counts.cumsum(0)  # node i's children are end[i] - counts[i] ... end[i] - 1
    x = [state.x[:0]]
    log_prob = [_nan(0)]
    x0 = [state.x[:0]]
    for index, real in chunks(len(level.key), rows):
        check_interrupt()
        policy = env.policy(state.take(index.to(env.latent_device)), stochastic)
        low = int(index[0])
        first = int(end[low] - counts[low])
        last = int(end[low + real - 1])
        action, scored = _act(env, policy, keys[first:last], counts[low : low + real], stochastic)
        x.append(action.to(env.latent_device))
        log_prob.append(scored)
        if preview:
            x0.append(_denoised(env, policy)[:real].to(env.latent_device, env.latent_dtype))
    parent = torch.arange(len(counts)).repeat_interleave(counts)
    grown = _Level(torch.cat(x), parent, torch.cat(log_prob), keys, level.root[parent])
    return grown, torch.cat(x0) if preview else None


def _act(
    env: Env, policy: Policy, keys: noise.Keys, counts: Tensor, stochastic: bool
) -> tuple[Tensor, Tensor]:
    real = len(counts)
    if not stochastic:
        return policy.mode[:real].to(env.latent_dtype), _nan(real)
    owner = torch.arange(real).repeat_interleave(counts)
    edge = policy.take(owner.to(env.device))
    action = edge.sample(KeyedDraws(keys, env.device), env.latent_dtype)
    return action, edge.log_prob(action).cpu()


def _assemble(
    roots: Roots, spec: TreeSpec, levels: list[_Level], x0: list[Tensor | None] | None
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
    step = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    previewed = None
    if x0 is not None:
        here = torch.tensor(spec.previewed)
        previewed = here[step].nonzero().flatten()
    return Tree(
        x=torch.cat(kept),
        slot=torch.cat(slot),
        task=torch.cat([roots.task[level.root] for level in levels]),
        parent=torch.cat(parent),
        log_prob=torch.cat([level.log_prob.double() for level in levels]),
        stochastic=torch.cat(sampled),
        step=step,
        key=torch.cat([torch.from_numpy(level.key.view(np.int64)) for level in levels]),
        sizes=sizes,
        previewed=previewed,
        x0=None if x0 is None else torch.cat([part for part in x0 if part is not None]),
    )


def _nothing() -> None:
    return


def _nan(count: int) -> Tensor:
    return torch.full((count,), float("nan"))


def _denoised(env: Env, policy: Policy) -> Tensor:
    x0 = policy.denoised
    if x0 is None:
        what = f"{type(env).__name__}'s policy says nothing about the finished sample"
        raise InputError(f"tree.previews: expected false, as {what}, got true")
    return x0


def _refuse_non_finite(x: Tensor, step: int, peers: Peers) -> None:
    """`NumericsError` in all processes, which may then go back together."""
    bad = (~torch.isfinite(x).flatten(1).all(1)).nonzero().flatten().tolist()
    number = peers.agree(bad[0] + 1 if bad else 0)
    if number:
        raise NumericsError(
            f"rollout: step {step}, child {number - 1} of its level: the latent is not finite"
        )
