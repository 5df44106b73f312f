"""The variance that each step decides, against worlds in which it is known."""

import math

import pytest
import torch
from forests import complete
from torch import Tensor

from treerl.engine.nested import nested
from treerl.engine.tree import Tree

DECIDED = (0.5, 0.2, 0.9)  # variance of the step after 0, 1, 2 steps


def additive(tree: Tree, between: float, seed: int) -> Tensor:
    """Leaf scores that are sums of independent terms, one for each node on their path."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.randn(len(tree), generator=generator, dtype=torch.float64)
    total[: tree.sizes[0]] *= math.sqrt(between)
    for number in range(1, tree.depth + 1):
        level = tree.level(number)
        total[level] *= math.sqrt(DECIDED[number - 1])
        total[level] += total[tree.parent[level]]
    return total[tree.leaves]


@pytest.mark.parametrize(("trees", "between"), [(1, 0.0), (4, 0.3)])
def test_each_steps_variance_is_found(trees: int, between: float) -> None:
    tree = complete(600, 3, 3, trees=trees)
    parts = nested(tree, additive(tree, between, 0))
    expected = dict(enumerate(DECIDED))
    if trees > 1:
        expected[-1] = between
    assert parts.variance.keys() == expected.keys()
    for step, variance in expected.items():
        assert parts.variance[step] == pytest.approx(variance, abs=0.06), step


@pytest.mark.parametrize(("trees", "between"), [(1, 0.0), (4, 0.3)])
def test_leaves_are_worth_the_variance_of_a_leaf_over_that_of_the_prompts_mean(
    trees: int, between: float
) -> None:
    tree = complete(2000, 3, 3, trees=trees)
    score = additive(tree, between, 1)
    means = score.view(2000, -1).mean(1)
    known = sum(DECIDED) + (between if trees > 1 else 0.0)
    exact = known / (
        between / trees + sum(v / (trees * 3 ** (i + 1)) for i, v in enumerate(DECIDED))
    )
    parts = nested(tree, score)
    assert parts.effective == pytest.approx(exact, rel=0.05)
    assert parts.effective == pytest.approx(known / float(means.var()), rel=0.08)
    assert parts.effective < 0.6 * 27 * trees


def test_samples_that_share_nothing_are_worth_their_number() -> None:
    tree = complete(3000, 1, 2, trees=8)
    score = torch.randn(24_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parts = nested(tree, score)
    assert parts.effective == pytest.approx(8, rel=1e-9) and parts.sibling_std == 0
    assert parts.variance.keys() == {-1}
    assert parts.variance[-1] == pytest.approx(1, rel=0.05)


def test_scores_that_do_not_vary_decide_nothing() -> None:
    tree = complete(2, 3, 2)
    parts = nested(tree, torch.ones(18))
    assert parts.effective == 9 and parts.sibling_std == 0
    assert set(parts.variance.values()) == {0.0}


def test_the_spread_of_siblings_is_a_sample_std_within_families() -> None:
    tree = complete(1, 2, 1)
    assert nested(tree, torch.tensor([1.0, 3.0])).sibling_std == pytest.approx(math.sqrt(2))
