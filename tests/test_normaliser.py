"""Normalisers: how the scores of several rewards become one number, against their formulas."""

import math

import pytest
import torch
from forests import complete, on_leaves, ragged, scores, standardised

from treerl.engine.normaliser import Centred, GlobalStd, Normaliser, Raw, Standardised
from treerl.errors import NumericsError

NORMALISERS = (Standardised(), Raw(), Centred(), GlobalStd())


def name(part: object) -> str:
    return type(part).__name__


def test_scores_are_standardised_by_the_population_std_of_their_own_prompt() -> None:
    tree = ragged(2)
    score = scores(tree, 2) * (1 + 10 * tree.task[tree.leaves]) + 100 * tree.task[tree.leaves]
    leaf = standardised(tree, score)
    for prompt in range(3):
        mine = score[tree.task[tree.leaves] == prompt]
        expected = (mine - mine.mean()) / mine.std(correction=0)
        values = leaf.values[tree.leaves][tree.task[tree.leaves] == prompt]
        assert torch.allclose(values, expected, rtol=0, atol=1e-12)
        assert float(leaf.spread[prompt]) == pytest.approx(float(mine.std(correction=0)), rel=1e-12)


def test_rewards_are_standardised_each_in_its_prompt_and_then_added() -> None:
    tree = complete(2, 2, 2)
    both = torch.stack([scores(tree, 1, 100.0), scores(tree, 2, 0.01)], 1)
    weight = torch.tensor([0.8, 0.2], dtype=torch.float64)
    together = Standardised(1e-9)(tree, on_leaves(tree, both), weight)
    first, second = (standardised(tree, column, 1e-9) for column in both.unbind(1))
    expected = 0.8 * first.values + 0.2 * second.values
    assert torch.allclose(together.values[tree.leaves], expected[tree.leaves], rtol=0, atol=1e-14)
    raw = Raw(1e-9)(tree, on_leaves(tree, both), weight)
    total = standardised(tree, both @ weight, 1e-9)
    assert torch.equal(raw.values[tree.leaves], total.values[tree.leaves])
    assert torch.equal(raw.spread, standardised(tree, both @ weight, 1e-9).spread)


def test_one_constant_reward_of_two_adds_nothing() -> None:
    tree = complete(2, 2, 2)
    both = torch.stack([scores(tree, 1), torch.full((8,), 0.3, dtype=torch.float64)], 1)
    together = Standardised()(tree, on_leaves(tree, both), torch.tensor([1.0, 1.0]))
    alone = standardised(tree, both[:, 0])
    assert torch.equal(together.values[tree.leaves], alone.values[tree.leaves])
    assert bool((together.spread > 0).all())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_refused(bad: float) -> None:
    tree = complete(1, 2, 1)
    score = on_leaves(tree, torch.tensor([[0.0], [bad]]))
    for normaliser in NORMALISERS:
        with pytest.raises(NumericsError, match="not finite"):
            normaliser(tree, score, torch.ones(1))


@pytest.mark.parametrize("seed", range(4))
def test_centred_and_global_std_scores_are_the_formulas_of_their_papers(seed: int) -> None:
    # Flow-GRPO: (r - mean of the prompt) / std over the whole iteration
    tree = ragged(seed)
    both = torch.stack([scores(tree, seed, 3.0), scores(tree, seed + 1)], 1)
    weights = torch.tensor([0.7, -0.4], dtype=torch.float64)
    total = 0.7 * both[:, 0] - 0.4 * both[:, 1]
    task = tree.task[tree.leaves]
    mean = torch.zeros(3, dtype=torch.float64).index_add(0, task, total) / torch.bincount(task)
    std = (total - total.mean()).square().mean().sqrt()
    leaf = on_leaves(tree, both)
    expected = total - mean[task]
    plain = Centred()(tree, leaf, weights)
    assert torch.allclose(plain.values[tree.leaves], expected, rtol=0, atol=1e-13)
    published = GlobalStd()(tree, leaf, weights)
    assert torch.allclose(published.values[tree.leaves], expected / std, rtol=0, atol=1e-13)
    for normaliser in (Raw(), Centred(), GlobalStd()):
        spread = normaliser(tree, leaf, weights).spread
        within = [total[task == row].std(correction=0) for row in range(3)]
        assert torch.allclose(spread, torch.stack(within), rtol=0, atol=1e-13)


def test_under_the_global_std_a_prompt_of_little_spread_teaches_little() -> None:
    tree = complete(2, 2, 1)
    score = torch.tensor([0.0, 0.1, 0.0, 10.0], dtype=torch.float64)
    leaf = on_leaves(tree, score)[:, None]
    own = Raw()(tree, leaf, torch.ones(1)).values[tree.leaves]
    assert own.tolist() == pytest.approx([-1, 1, -1, 1], abs=1e-9)
    shared = GlobalStd()(tree, leaf, torch.ones(1)).values[tree.leaves]
    assert float(shared[3] / shared[1]) == pytest.approx(100)


@pytest.mark.parametrize("normaliser", NORMALISERS, ids=name)
def test_inner_nodes_that_are_scored_are_put_on_their_leaves_scale(normaliser: Normaliser) -> None:
    tree = complete(2, 2, 2)
    leaf = scores(tree, 3)
    score = on_leaves(tree, leaf)[:, None]
    score[2] = leaf[0]  # a node with the very score of the first leaf of its task
    values = normaliser(tree, score, torch.ones(1)).values
    assert float(values[2]) == float(values[tree.leaves[0]])
    assert torch.equal(values.isnan(), score[:, 0].isnan())


def test_a_reward_in_another_unit_changes_nothing_when_each_is_standardised() -> None:
    tree = complete(tasks=2, branching_factor=2, depth=3, trees=2)
    both = torch.stack([scores(tree, 1), scores(tree, 2)], 1)
    weights = torch.tensor([0.8, 0.2], dtype=torch.float64)
    scaled = both * torch.tensor([1.0, 1000.0], dtype=torch.float64)
    for normaliser in (Standardised(), Raw()):
        plain = normaliser(tree, on_leaves(tree, both), weights).values[tree.leaves]
        other = normaliser(tree, on_leaves(tree, scaled), weights).values[tree.leaves]
        same = torch.allclose(plain, other, rtol=1e-9, atol=1e-9)
        assert same == normaliser.free_of_units


@pytest.mark.parametrize("size", [1.0, 1e4, 1e8])
def test_scores_that_are_equal_but_for_rounding_are_equal_whatever_their_size(size: float) -> None:
    """A reward in float32 repeats itself to seven digits: its last ones must teach nothing."""
    tree = complete(2, 4, 1)  # two prompts of four leaves
    third = torch.tensor(1 / 3, dtype=torch.float32)
    wobble = torch.tensor([0.0, 1.0, 2.0, -1.0]) * torch.finfo(torch.float32).eps / 4  # last places
    leaves = size * torch.cat([third + wobble, torch.tensor([0.3, 0.4, 0.5, 0.6])])
    first = tree.leaves[tree.task[tree.leaves] == 0]
    second = tree.leaves[tree.task[tree.leaves] == 1]
    assert len(torch.unique(leaves[:4])) > 1
    score = on_leaves(tree, leaves.double()[:, None])
    for normaliser in NORMALISERS:
        made = normaliser(tree, score, torch.ones(1, dtype=torch.float64))
        assert made.spread[0] == 0 and not made.values[first].any()
        assert made.spread[1] > 0 and bool(made.values[second].all())
