"""How far the ratio of a policy to itself is from 1 on this machine: rounding, and nothing else."""

from collections.abc import Sequence

import torch

from treerl.engine import noise
from treerl.engine.env import Env
from treerl.engine.noise import Stream
from treerl.engine.objective import Clipping, Objective
from treerl.engine.policy import KeyedDraws
from treerl.engine.tree import State
from treerl.engine.tree_spec import TreeSpec
from treerl.errors import NumericsError


def replay_noise(env: Env, specs: Sequence[TreeSpec], rows: int, seed: int = 0) -> float:
    """The largest |ratio - 1| of edges that are replayed before anything has moved.

    `rows` states take the first and the last step that the trees sample, as in a rollout; an update
    then evaluates the same states in another order. Two forwards a step, over `env`'s tasks.
    """
    sampled = sorted({step for spec in specs for step in _sampled(spec)})
    order = torch.arange(rows).flip(0)
    task = torch.arange(rows) % len(env.tasks)
    keys = noise.children(noise.key(seed, Stream.REPLAY), rows)
    draws = noise.normal(keys, env.shape, torch.float32, env.device)
    largest = 0.0
    for step in dict.fromkeys(sampled[:1] + sampled[-1:]):
        with torch.no_grad(), env.walking(True):
            start = env.initial(task.to(env.device), draws)
            x = start.x.to(env.latent_device, env.latent_dtype)
            state = State(x, torch.full((rows,), step), task)
            policy = env.policy(state, stochastic=True)
            action = policy.sample(KeyedDraws(noise.mix(keys, step), env.device), env.latent_dtype)
            taken = policy.log_prob(action).cpu()
        again = env.policy(state.take(order), stochastic=True)
        replayed = again.log_prob(action[order.to(action.device)]).detach().cpu()
        ratio = (replayed.double() - taken[order].double()).exp()
        largest = max(largest, float((ratio - 1).abs().max()))
    return largest


def refuse_noise(noise_: float, objective: Objective) -> None:
    """`NumericsError` where rounding alone leaves the range in which a ratio is not clipped."""
    if isinstance(objective, Clipping) and not noise_ < objective.clip_range:
        raise NumericsError(
            f"objective.clip_range: expected more than {noise_:.2g}, by which ratios differ from 1 "
            "by rounding alone with this model, dtype and machine, got "
            f"{objective.clip_range:g}; widen it, set env.latent_dtype=float32 or lower "
            "kernel.noise_level"
        )


def _sampled(spec: TreeSpec) -> list[int]:
    return [step for step, here in zip(spec.at, spec.stochastic, strict=False) if here]
