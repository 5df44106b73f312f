"""The figures of an iteration, by the names under which a run keeps them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from treerl.engine.advantage import Advantages
from treerl.engine.algorithm import Algorithm
from treerl.engine.minibatch import Minibatch
from treerl.engine.nested import nested
from treerl.engine.objective import Loss, Objective
from treerl.engine.peers import Peers
from treerl.engine.scorer import Scorer
from treerl.engine.tree import Tree

Update = list[list[tuple[Minibatch, Loss]]]  # what every optimizer step did


def rollout_metrics(
    tree: Tree,
    scores: Tensor,
    rewards: Scorer,
    advantages: Advantages,
    algorithm: Algorithm,
) -> dict[str, Any]:
    """Rewards, sizes and advantages; `scores` `[L, K]` are those of the leaves."""
    names = rewards.names
    weights = rewards.weights
    total = scores @ weights
    task = tree.task[tree.leaves]
    stds = _variances(task, total[:, None]).sqrt()
    sampled = advantages.advantage[tree.edges]
    starts = tree.step[tree.parent[tree.edges]]
    first = int(starts.min()) if len(starts) else None
    means = {
        name: float(column.mean()) for name, column in zip(names, scores.unbind(1), strict=True)
    }
    return {
        "reward": float(total.mean()),
        "reward_std": float(stds.mean()),
        "rewards": means,
        **_shares(task, scores, names, weights, algorithm),
        "sampling_forwards": tree.forwards,
        "leaves": tree.sizes[-1],
        "window_start": first,
        "advantage_abs": float(sampled.abs().mean()) if len(sampled) else 0.0,
        "zero_std_prompts": advantages.zero_std,
        **_correlated(tree, total, sampled, algorithm),
    }


def _correlated(
    tree: Tree, total: Tensor, advantage: Tensor, algorithm: Algorithm
) -> dict[str, Any]:
    """What leaves that share a trunk are worth, and edges that teach nothing or too much."""
    parts = nested(tree, total)
    count = max(len(advantage), 1)
    return {
        "effective_leaves": parts.effective,
        "sibling_std": parts.sibling_std,
        "variance_by_step": {str(step): value for step, value in parts.variance.items()},
        "zero_advantages": int((advantage == 0).sum()) / count,
        "clipped_advantages": int((advantage.abs() >= algorithm.advantage_clip).sum()) / count,
    }


def update_metrics(
    update: Update, norms: Sequence[float], peers: Peers, objective: Objective
) -> dict[str, Any]:
    """The loss and what the clip did, over all optimizer steps and processes."""
    pairs = [pair for step in update for pair in step]
    losses = [float((batch.weight * loss.value.cpu().double()).sum()) for batch, loss in pairs]
    edges = sum(len(batch.children) for batch, _ in pairs)
    clipped = sum(int(loss.clipped.sum()) for _, loss in pairs)
    # of the first optimizer step, where the policy has not moved: all but 0 is an error of replay
    deviations = [float((loss.ratio - 1).abs().max()) for _, loss in update[0]]
    forwards = sum(batch.real for batch, _ in pairs)
    deviation = max(deviations, default=0.0)  # a selection may train nothing
    sums = torch.tensor([sum(losses), edges, clipped, forwards, deviation], dtype=torch.float64)
    every = torch.stack([part["update"] for part in peers.gather({"update": sums})])
    total = every.sum(0)
    compares = objective.weight_set is not None
    return {
        "loss": float(total[0]) / len(update),
        "update_forwards": int(total[3]),
        "reference_forwards": int(total[3]) if compares else 0,
        "edges": int(total[1]),
        "clip_fraction": float(total[2]) / max(int(total[1]), 1),
        "ratio_deviation": float(every[:, 4].max()),
        "grad_norm": max(norms),
    }


def _variances(task: Tensor, scores: Tensor) -> Tensor:
    """The population variances `[P, K]` of scores `[L, K]` within each task; of equal ones 0."""
    _, row, count = torch.unique(task, return_inverse=True, return_counts=True)
    zeros = scores.new_zeros(len(count), scores.shape[1])
    each = row[:, None].expand_as(scores)
    # above the smallest, equal scores are exactly 0, and so is what is made of them
    above = scores - zeros.scatter_reduce(0, each, scores, "amin", include_self=False)[row]
    mean = zeros.index_add(0, row, above) / count[:, None]
    variance: Tensor = zeros.index_add(0, row, (above - mean[row]).square()) / count[:, None]
    return variance


def _shares(
    task: Tensor, scores: Tensor, names: Sequence[str], weights: Tensor, algorithm: Algorithm
) -> dict[str, Any]:
    """How much each reward varies within a task, and its share of the variance trained on."""
    variance = _variances(task, scores).mean(0)
    if algorithm.normaliser.free_of_units:
        unit = (variance > 0).double()  # every reward that varies was brought to about variance 1
    else:
        unit = variance
    part = weights.square() * unit
    share = part / part.sum().clamp(min=1e-30)
    return {
        "reward_stds": dict(zip(names, variance.sqrt().tolist(), strict=True)),
        "reward_shares": dict(zip(names, share.tolist(), strict=True)),
    }
