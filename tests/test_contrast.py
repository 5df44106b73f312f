"""The nodes whose children turned out most different, and what training them alone costs."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from forests import complete, forest, ragged
from torch import Tensor

from treerl.engine.branching import window
from treerl.engine.branchings.chain import Chain
from treerl.engine.selections.contrast import Contrast
from treerl.engine.tree import Tree


def select(selection: Contrast, tree: Tree, advantage: Tensor) -> Tensor:
    return selection(tree, advantage, np.random.default_rng(0))


def drawn(tree: Tree, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(tree), generator=generator, dtype=torch.float64)


def by_hand(tree: Tree, advantage: Tensor) -> dict[int, float]:
    """The spread among the sampled children of each node, around 0 where there is one alone."""
    children: dict[int, list[float]] = {}
    for node in tree.edges.tolist():
        children.setdefault(int(tree.parent[node]), []).append(float(advantage[node]))
    spread = {}
    for node, values in children.items():
        centre = sum(values) / len(values) if len(values) > 1 else 0.0
        spread[node] = sum((value - centre) ** 2 for value in values)
    return spread


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("tree", [complete(3, 2, 4), complete(2, 3, 2, trees=2), ragged(3)])
def test_contrast_keeps_the_nodes_of_the_iteration_with_the_widest_spread(
    tree: Tree, share: float
) -> None:
    advantage = drawn(tree, seed=1)
    spread = by_hand(tree, advantage)
    sizes = torch.bincount(tree.roots()[torch.tensor(sorted(spread))]).tolist()
    kept = sum(max(min(size, 1), int(share * size + 1e-9)) for size in sizes)
    best = sorted(spread, key=lambda node: -spread[node])[:kept]
    chosen = select(Contrast(share), tree, advantage)
    expected = [node for node in tree.edges.tolist() if int(tree.parent[node]) in best]
    assert chosen.nonzero().flatten().tolist() == expected


def test_a_prompt_whose_leaves_agree_leaves_its_share_to_the_others() -> None:
    tree = complete(2, 2, 3)
    advantage = torch.where(tree.task == 0, 1.0, drawn(tree, seed=2))
    chosen = select(Contrast(0.5), tree, advantage)
    nodes = torch.unique(tree.parent[chosen])
    assert len(nodes) == 2 * 3 and set(tree.task[nodes].tolist()) == {1}


def test_what_all_siblings_share_makes_no_contrast() -> None:
    tree = complete(1, 2, 2)  # node 0 has the children 1 and 2, they have 3, 4 and 5, 6
    advantage = torch.tensor([0.0, 9.0, 9.0, 9.0, 9.5, -0.5, 0.5], dtype=torch.float64)
    assert select(Contrast(0.34), tree, advantage).nonzero().flatten().tolist() == [5, 6]


def test_an_only_child_is_compared_with_the_prompt() -> None:
    levels = [torch.tensor([0, 1, 2])]
    stochastic = torch.tensor([False, False, False, True, True, True])
    tree = forest(levels, torch.tensor([0, 1, 2]), torch.zeros(6), stochastic)
    advantage = torch.tensor([0.0, 0.0, 0.0, 0.1, -3.0, 2.0], dtype=torch.float64)
    # each tree has one node, so each share of it is that node: all are kept
    assert select(Contrast(0.5), tree, advantage).tolist() == stochastic.tolist()
    pair = complete(1, 1, 2)
    assert select(Contrast(0.5), pair, torch.tensor([0.0, 0.1, -3.0])).tolist() == [0, 0, 1]


def test_the_plan_knows_the_cost_to_the_node() -> None:
    spec = window(6, 1, 4, 2)
    tree = complete(5, 2, 4)
    for share in (0.05, 0.2, 0.25, 0.6, 1.0):
        selection = Contrast(share)
        chosen = select(selection, tree, drawn(tree, seed=3))
        assert len(torch.unique(tree.parent[chosen])) == 5 * selection.decisions(spec)
        assert int(chosen.sum()) == 5 * selection.edges(spec)


def test_no_sampled_step_is_no_node() -> None:
    (spec,) = Chain().support(6)
    assert (Contrast().decisions(spec), Contrast().edges(spec)) == (0, 0.0)
    tree = complete(2, 2, 2)
    quiet = Tree(**{**vars(tree), "stochastic": torch.zeros(len(tree), dtype=torch.bool)})
    assert not select(Contrast(), quiet, drawn(tree, seed=4)).any()


def kept_gradient(share: float) -> float:
    """E[u²; |u| > τ] of u ~ N(0, 1) where P(|u| > τ) = share: what stays of a gradient."""
    threshold = NormalDist().inv_cdf(1 - share / 2)
    return share + 2 * threshold * NormalDist().pdf(threshold)


@pytest.mark.parametrize(("share", "kept"), [(0.5, 0.929), (0.25, 0.724), (1.0, 1.0)])
def test_between_gaussians_the_chosen_nodes_keep_the_direction_and_most_of_the_gradient(
    share: float, kept: float
) -> None:
    # mirrored pairs ±z, scores of slope g along z: a node's gradient (A₁ - A₂) z has the mean 2 g
    pairs = 40_000
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(pairs, 3, generator=generator, dtype=torch.float64)
    slope = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    levels = [torch.zeros(pairs, dtype=torch.long), torch.arange(pairs).repeat_interleave(2)]
    count = 1 + 3 * pairs
    stochastic = torch.arange(count) > pairs
    tree = forest(levels, torch.zeros(1, dtype=torch.long), torch.zeros(count), stochastic)
    height = noise @ slope
    advantage = torch.zeros(count, dtype=torch.float64)
    advantage[stochastic] = torch.stack([height, -height], dim=1).flatten()
    chosen = select(Contrast(share), tree, advantage)[stochastic][::2]
    gradients = torch.where(chosen[:, None], 2 * height[:, None] * noise, 0.0)
    error = gradients.std(dim=0) / math.sqrt(pairs)
    assert kept_gradient(share) == pytest.approx(kept, abs=5e-4)
    assert float(((gradients.mean(dim=0) - 2 * kept * slope) / error).abs().max()) < 3
