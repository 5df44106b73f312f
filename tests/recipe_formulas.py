"""The losses of the published algorithms, as their papers print them: no code of the engine.

Each takes a case and gives the loss of its one optimizer step. Log-probabilities are means over
dimensions, as in all the released codes; with several rewards, each is standardised by itself
where the method standardises by prompt, and their sum is where it takes the iteration's std.
"""

import math
from collections.abc import Callable

import torch
from recipe_case import WEIGHTS, Case
from recipe_moves import dance_sde, flow_sde, moves, std_of
from recipe_values import (
    Values,
    backed_up,
    by_iteration,
    by_prompt,
    grouped,
    half_that_differs_most,
    of_trained,
    over_nodes,
    ppo,
)
from torch import Tensor

from treerl.engine.tree import State


def treegrpo(case: Case) -> Tensor:
    edges = moves(case, flow_sde(0.7))
    advantage = of_trained(case, backed_up(case, by_prompt(case)))
    return over_nodes(case, ppo(edges.log_ratio.exp(), advantage, 1e-4))


def treerl(case: Case) -> Tensor:
    edges = moves(case, flow_sde(0.7))
    values = backed_up(case, by_prompt(case))
    assert set(case.trained.tolist()) == half_that_differs_most(case, values)
    return over_nodes(case, ppo(edges.log_ratio.exp(), of_trained(case, values), 1e-4))


def branchgrpo(case: Case) -> Tensor:
    edges = moves(case, dance_sde(0.3))
    values = backed_up(case, by_prompt(case))
    tree = case.tree
    depth = grouped(case, values, lambda node: (int(tree.task[node]), int(tree.step[node])))
    return ppo(edges.log_ratio.exp(), of_trained(case, depth), 1e-3).mean()


def ddpo(case: Case) -> Tensor:
    edges = moves(case, flow_sde(0.7))
    advantage = of_trained(case, backed_up(case, by_prompt(case)))
    return ppo(edges.log_ratio.exp(), advantage, 1e-4).mean()


def g2rpo(case: Case) -> Tensor:
    """The advantages of three strides, each standardised by itself, are added."""
    edges = moves(case, flow_sde(0.7))
    own = by_prompt(case)
    values = {leaf: own[leaf] + by_prompt(case, 1)[leaf] + by_prompt(case, 2)[leaf] for leaf in own}
    advantage = of_trained(case, backed_up(case, values))
    return ppo(edges.log_ratio.exp(), advantage, 1e-4).mean()


def flowgrpo(case: Case) -> Tensor:
    edges = moves(case, flow_sde(0.7))
    advantage = of_trained(case, backed_up(case, by_iteration(case)))
    return (ppo(edges.log_ratio.exp(), advantage, 1e-4) + 0.04 * edges.kl).mean()


def flowgrpo_fast(case: Case) -> Tensor:
    edges = moves(case, flow_sde(0.8))
    advantage = of_trained(case, backed_up(case, by_iteration(case)))
    return ppo(edges.log_ratio.exp(), advantage, 1e-5).mean()


def dancegrpo(case: Case) -> Tensor:
    edges = moves(case, dance_sde(0.3))
    advantage = of_trained(case, backed_up(case, by_prompt(case)))
    return ppo(edges.log_ratio.exp(), advantage, 1e-4).mean()


def tempflow(case: Case) -> Tensor:
    edges = moves(case, flow_sde(0.7))
    values = backed_up(case, by_prompt(case))
    advantage = of_trained(case, grouped(case, values, lambda node: (int(case.tree.parent[node]),)))
    stds = [std_of(case, flow_sde(0.7), step) for step in range(case.tree.steps - 1)]
    weight = edges.std / (sum(stds) / len(stds))
    return (weight * ppo(edges.log_ratio.exp(), advantage, 1e-4) + 0.004 * edges.kl).mean()


def flash(case: Case) -> Tensor:
    edges = moves(case, flow_sde(0.7))
    advantage = of_trained(case, backed_up(case, by_prompt(case)))
    rectified = []
    for step in range(case.tree.steps - 1):
        now = float(case.sigma[step])
        after = float(case.sigma[step + 1])
        g = flow_sde(0.7)(now, after)
        root = math.sqrt(now - after)
        rectified.append(1 / (root / g + g * root * (1 - now) / (2 * now)))
    mean = sum(rectified) / len(rectified)
    weight = torch.tensor([rectified[int(step)] / mean for step in edges.step])
    return (weight * ppo(edges.log_ratio.exp(), advantage, 1e-3)).mean()


def guard(case: Case) -> Tensor:
    """ρ = exp[(Δ log p + |Δμ|² / 2 s²) s], the loss divided by Δ."""
    edges = moves(case, flow_sde(0.7))
    advantage = of_trained(case, backed_up(case, by_iteration(case)))
    ratio = ((edges.log_ratio + edges.drift) * edges.std).exp()
    return (ppo(ratio, advantage, 2e-6) / edges.delta).mean()


def dppo(case: Case) -> Tensor:
    edges = moves(case, flow_sde(0.7))
    advantage = of_trained(case, backed_up(case, by_iteration(case)))
    ratio = edges.log_ratio.exp()
    better = (advantage > 0) & (ratio > 1)
    worse = (advantage < 0) & (ratio < 1)
    kept = ~((edges.drift > 1e-5) & (better | worse))
    return (-ratio * advantage * kept).mean()


def stepwise(case: Case) -> Tensor:
    """g = r(x̂₀ after) - r(x̂₀ before), standardised among a prompt's gains of one step."""
    edges = moves(case, flow_sde(0.7))
    tree = case.tree
    reward: Values = {}
    for task in torch.unique(tree.task).tolist():
        leaves = tree.leaves[tree.task[tree.leaves] == task]
        mean = case.scores[leaves, 0].mean(0)
        std = case.scores[leaves, 0].std(0, unbiased=False)
        for node in (tree.task == task).nonzero().flatten().tolist():
            reward[node] = float(((case.scores[node, 0] - mean) / std) @ WEIGHTS)
    gain = {node: reward[node] - reward[int(tree.parent[node])] for node in tree.edges.tolist()}
    credit = grouped(case, gain, lambda node: (int(tree.task[node]), int(tree.step[node])))
    return ppo(edges.log_ratio.exp(), of_trained(case, credit), 1e-4).mean()


def nft(case: Case) -> Tensor:
    """Eq. 5 and the released weights: x₀ from v⁺ = (1-β) v_old + β v and from v⁻, with β = 1."""
    leaves = case.leaves
    assert leaves is not None
    state = State(leaves.x, leaves.step, leaves.task)
    v = case.now.velocity(state)
    with torch.no_grad():
        old = case.old.velocity(state)
    t = leaves.sigma.view(-1, 1, 1)
    beta = 1.0
    errors = []
    for implied in ((1 - beta) * old + beta * v, (1 + beta) * old - beta * v):
        gap = leaves.x - t * implied - leaves.x0
        weight = gap.detach().abs().mean((1, 2), keepdim=True).clamp(min=1e-5)
        errors.append((gap**2 / weight).mean((1, 2)))
    advantage = of_trained(case, by_iteration(case))
    r = (advantage / 5).clamp(-1, 1) / 2 + 0.5
    return 5 * (r * errors[0] / beta + (1 - r) * errors[1] / beta).mean()


def awm(case: Case) -> Tensor:
    """A |v - (ε - x₀)|² + β |v - v_ref|²."""
    leaves = case.leaves
    assert leaves is not None
    state = State(leaves.x, leaves.step, leaves.task)
    v = case.now.velocity(state)
    with torch.no_grad():
        start = case.start.velocity(state)
    matching = ((v - (leaves.eps - leaves.x0)) ** 2).mean((1, 2))
    pull = ((v - start) ** 2).mean((1, 2))
    return (of_trained(case, by_iteration(case)) * matching + 0.1 * pull).mean()


FORMULAS: dict[str, Callable[[Case], Tensor]] = {
    "treerl": treerl,
    "treegrpo": treegrpo,
    "treegrpo-code": treegrpo,
    "branchgrpo": branchgrpo,
    "branchgrpo-pruned": branchgrpo,
    "ddpo": ddpo,
    "flowgrpo": flowgrpo,
    "flowgrpo-fast": flowgrpo_fast,
    "dancegrpo": dancegrpo,
    "mixgrpo": ddpo,  # its window decides what is trained, its loss is the same
    "tempflow": tempflow,
    "g2rpo": g2rpo,
    "flash-grpo": flash,
    "grpo-guard": guard,
    "flow-dppo": dppo,
    "stepwise": stepwise,
    "nft": nft,
    "awm": awm,
}
