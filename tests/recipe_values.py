"""What the formulas of the published algorithms are made of: values, advantages, sums."""

import math
from collections.abc import Callable

import torch
from recipe_case import WEIGHTS, Case
from torch import Tensor

Values = dict[int, float]  # by node


def leaves_below(case: Case) -> dict[int, list[int]]:
    """The leaves below every node."""
    below: dict[int, list[int]] = {int(leaf): [int(leaf)] for leaf in case.tree.leaves}
    for node in range(len(case.tree) - 1, 0, -1):
        parent = int(case.tree.parent[node])
        if parent >= 0:
            below.setdefault(parent, []).extend(below[node])
    return below


def standardised(numbers: Values) -> Values:
    """(r - mean) / std of a group."""
    group = list(numbers.values())
    mean = sum(group) / len(group)
    std = math.sqrt(sum((number - mean) ** 2 for number in group) / len(group))
    return {node: (number - mean) / std for node, number in numbers.items()}


def by_prompt(case: Case, walk: int = 0) -> Values:
    """Each reward in units of its prompt's leaves, then the weighted sum."""
    values: Values = {}
    for task in torch.unique(case.tree.task).tolist():
        leaves = [int(leaf) for leaf in case.tree.leaves if int(case.tree.task[leaf]) == task]
        columns = []
        for k in range(len(WEIGHTS)):
            column = case.scores[:, walk, k]
            columns.append(standardised({leaf: float(column[leaf]) for leaf in leaves}))
        for leaf in leaves:
            terms = [float(WEIGHTS[k]) * column[leaf] for k, column in enumerate(columns)]
            values[leaf] = sum(terms)
    return values


def less_the_mean(case: Case) -> Values:
    """The weighted sum of the rewards, less its prompt's mean."""
    total = {int(leaf): float(case.scores[leaf, 0] @ WEIGHTS) for leaf in case.tree.leaves}
    values: Values = {}
    for leaf, number in total.items():
        task = int(case.tree.task[leaf])
        group = [other for node, other in total.items() if int(case.tree.task[node]) == task]
        values[leaf] = number - sum(group) / len(group)
    return values


def by_iteration(case: Case) -> Values:
    """(r - mean of the prompt) / std of all samples: Flow-GRPO's."""
    total = [float(case.scores[leaf, 0] @ WEIGHTS) for leaf in case.tree.leaves]
    mean = sum(total) / len(total)
    std = math.sqrt(sum((number - mean) ** 2 for number in total) / len(total))
    return {leaf: number / std for leaf, number in less_the_mean(case).items()}


def backed_up(case: Case, leaf_values: Values) -> Values:
    """The mean over the leaves below."""
    below = leaves_below(case)
    return {
        node: sum(leaf_values[leaf] for leaf in leaves) / len(leaves)
        for node, leaves in below.items()
    }


def grouped(case: Case, values: Values, group: Callable[[int], tuple[int, ...]]) -> Values:
    """Values standardised in groups of nodes."""
    groups: dict[tuple[int, ...], Values] = {}
    for node in case.tree.edges.tolist():
        groups.setdefault(group(node), {})[node] = values[node]
    out: Values = {}
    for members in groups.values():
        out |= standardised(members)
    return out


def of_trained(case: Case, advantage: Values) -> Tensor:
    return torch.tensor([_cut(advantage[int(node)]) for node in case.trained], dtype=torch.float64)


def _cut(advantage: float) -> float:
    return max(-5.0, min(5.0, advantage))


def half_that_differs_most(case: Case, advantage: Values) -> set[int]:
    """The children of those half of the pairs, of all prompts together, with the largest |A - A'|.

    Half of each tree's pairs, rounded down, is what an update may train.
    """
    pairs: dict[int, list[int]] = {}
    for child in case.tree.edges.tolist():
        pairs.setdefault(int(case.tree.parent[child]), []).append(child)
    difference = {}
    for parent, (a, b) in pairs.items():
        difference[parent] = abs(_cut(advantage[a]) - _cut(advantage[b]))
    trees = case.tree.sizes[0]
    kept = trees * (len(pairs) // trees // 2)
    widest = sorted(pairs, key=lambda parent: -difference[parent])[:kept]
    return {child for parent in widest for child in pairs[parent]}


def ppo(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-min(ρ A, clip(ρ) A)."""
    return -torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def over_nodes(case: Case, loss: Tensor) -> Tensor:
    """Summed over siblings, a mean over nodes (the TreeGRPO authors' code)."""
    nodes = torch.unique(case.tree.parent[case.trained])
    return loss.sum() / len(nodes)
