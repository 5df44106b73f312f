"""The sampled steps of a case, by the Gaussians that the papers print."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from oracle import Neural
from recipe_case import Case
from torch import Tensor

Diffusion = Callable[[float, float], float]  # g of (σ, σ')


def flow_sde(a: float) -> Diffusion:
    """Flow-GRPO Eq. 9; at σ = 1 the denominator takes the next σ."""
    return lambda now, after: a * math.sqrt(now / (1 - (after if now == 1 else now)))


def dance_sde(eta: float) -> Diffusion:
    return lambda now, after: eta


@dataclass(frozen=True)
class Moves:
    """The trained edges, under the network now and as it was."""

    mean: Tensor  # [E, ...]
    old: Tensor  # [E, ...]
    start: Tensor  # [E, ...]
    std: Tensor  # [E]
    x: Tensor  # [E, ...] where they lead
    log_ratio: Tensor  # [E]
    kl: Tensor  # [E] to the start
    drift: Tensor  # [E] KL to the rollout
    delta: Tensor  # [E]
    step: Tensor  # [E]


def moves(case: Case, diffusion: Diffusion) -> Moves:
    tree = case.tree
    edges = case.trained
    step = tree.step[edges] - 1
    std = torch.tensor([std_of(case, diffusion, int(i)) for i in step], dtype=torch.float64)
    x = tree.at(edges).x
    mean = _mean(case, case.now, edges, diffusion)
    with torch.no_grad():
        old = _mean(case, case.old, edges, diffusion)
        start = _mean(case, case.start, edges, diffusion)
    wide = std.view(-1, 1, 1)
    log_ratio = (_log_density(x, mean, wide) - _log_density(x, old, wide)).flatten(1).mean(1)
    kl = ((mean - start) ** 2 / (2 * wide**2)).flatten(1).mean(1)
    drift = ((mean - old) ** 2 / (2 * wide**2)).flatten(1).mean(1)
    delta = case.sigma[step] - case.sigma[step + 1]
    return Moves(mean, old, start, std, x, log_ratio, kl, drift, delta, step)


def _mean(case: Case, world: Neural, edges: Tensor, diffusion: Diffusion) -> Tensor:
    """x - Δ [v + g²/(2σ) (x + (1-σ) v)]."""
    parents = case.tree.at(case.tree.parent[edges])
    v = world.velocity(parents)
    rows = []
    for x, velocity, step in zip(parents.x, v, parents.step.tolist(), strict=True):
        now = float(case.sigma[step])
        after = float(case.sigma[step + 1])
        pull = diffusion(now, after) ** 2 / (2 * now)
        rows.append(x - (now - after) * (velocity + pull * (x + (1 - now) * velocity)))
    return torch.stack(rows)


def std_of(case: Case, diffusion: Diffusion, step: int) -> float:
    now = float(case.sigma[step])
    after = float(case.sigma[step + 1])
    return diffusion(now, after) * math.sqrt(now - after)


def _log_density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    density: Tensor = torch.distributions.Normal(mean, std).log_prob(x)  # type: ignore[no-untyped-call]
    return density
