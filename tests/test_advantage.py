"""Advantages: what adds up to zero, what does not change them, and what gives exactly nothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from forests import centred, complete, on_leaves, ragged, scores, standardised
from torch import Tensor

from treerl.engine.advantage import advantages
from treerl.engine.baseline import Baseline, Depth, LeaveSubtreeOut, ParentGain, Prompt, Siblings
from treerl.engine.normaliser import Centred, GlobalStd, Normaliser, Raw, Standardised
from treerl.engine.tree import Tree
from treerl.engine.weighting import (
    Siblings as Family,
    SoftmaxMeanLogProb,
    SoftmaxSumLogProb,
    SoftmaxValue,
    Uniform,
    Weighting,
    back_up,
)
from treerl.errors import NumericsError

INF = float("inf")


@dataclass(frozen=True)
class Ranked(Weighting):
    """A plug-in: 1, 2, 3, ... by rank of the log-prob."""

    def __call__(self, siblings: Family) -> Tensor:
        rank = (siblings.log_prob.argsort(1).argsort(1) + 1).double()
        return rank / rank.sum(1, keepdim=True)


WEIGHTINGS = (Uniform(), SoftmaxMeanLogProb(), SoftmaxSumLogProb(0.5), SoftmaxValue(2.0), Ranked())
NORMALISERS = (Standardised(), Raw(), Centred(), GlobalStd())
BASELINES = (Prompt(), Depth(), Siblings(), ParentGain(), LeaveSubtreeOut())


def name(part: object) -> str:
    return type(part).__name__


def gained(
    tree: Tree, score: Tensor, weighting: Weighting, baseline: Baseline, normalise: bool = True
) -> Tensor:
    """The advantages, in units of the spread or, when not normalised, in the reward's."""
    leaf = standardised(tree, score, 1e-12) if normalise else centred(tree, score, 1e-12)
    credit = advantages(tree, leaf, weighting, baseline, normalise=normalise, clip=INF)
    return credit.advantage


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=name)
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_weighted_sums_vanish_at_every_node_and_every_depth(
    weighting: Weighting, normalise: bool, seed: int
) -> None:
    tree = ragged(seed)
    leaf = (standardised if normalise else centred)(tree, scores(tree, seed))
    backup = back_up(tree, leaf.values, weighting)
    credit = advantages(tree, leaf, weighting, Prompt(), normalise=normalise, clip=INF)
    advantage = credit.advantage
    inner = torch.arange(tree.sizes[0], len(tree))
    above = tree.parent[inner]
    gap = backup.shares[inner] / backup.shares[above] * (advantage[inner] - advantage[above])
    sums = torch.zeros(len(tree), dtype=torch.float64).index_add(0, above, gap)
    assert float(sums.abs().max()) <= 1e-12
    for step in range(len(tree.sizes)):
        level = tree.level(step)
        part = torch.zeros(3, dtype=torch.float64)
        shares = part.index_add(0, tree.task[level], backup.shares[level])
        assert torch.allclose(shares, part + 1, rtol=0, atol=1e-12)
        part.index_add_(0, tree.task[level], backup.shares[level] * advantage[level])
        assert float(part.abs().max()) <= 1e-12


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=name)
def test_the_baselines_are_given_the_weights_that_made_the_values(weighting: Weighting) -> None:
    # with its complement's mean: V·share + centre·(1 - share) is the prompt's mean at every node
    tree = ragged(9)
    backup = back_up(tree, on_leaves(tree, scores(tree, 9)), weighting)
    centre = LeaveSubtreeOut()(tree, backup, ()).centre
    whole = Prompt()(tree, backup, ()).centre
    partial = backup.shares < 1 - 1e-9
    mixed = backup.values * backup.shares + centre * (1 - backup.shares)
    assert torch.allclose(mixed[partial], whole[partial], rtol=0, atol=1e-12)
    assert torch.equal(centre[~partial], backup.values[~partial])


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=name)
@pytest.mark.parametrize("baseline", BASELINES, ids=name)
def test_a_constant_does_not_change_advantages_and_a_factor_does_as_declared(
    weighting: Weighting, baseline: Baseline
) -> None:
    tree = ragged(4)
    score = (scores(tree, 4) * 2**20).round() / 2**20  # so that adding 1e6 rounds nothing away
    plain = gained(tree, score, weighting, baseline)
    in_unit = gained(tree, score, weighting, baseline, False)
    assert float(plain.abs().max()) > 0.5
    for constant in (-1e6, -3.0, 0.5, 1e6):
        moved = gained(tree, score + constant, weighting, baseline)
        assert torch.allclose(moved, plain, rtol=1e-9, atol=1e-9)
        moved = gained(tree, score + constant, weighting, baseline, False)
        assert torch.allclose(moved, in_unit, rtol=1e-9, atol=1e-9)
    for factor in (1e-6, 0.1, 7.0, 1e6):
        scaled = gained(tree, score * factor, weighting, baseline)
        assert torch.allclose(scaled, plain, rtol=1e-9, atol=1e-11)
        in_scale = weighting
        if isinstance(weighting, SoftmaxValue):  # its temperature is in the values' unit
            in_scale = SoftmaxValue(weighting.temperature * factor)
        scaled = gained(tree, score * factor, in_scale, baseline, False)
        assert torch.allclose(scaled, factor * in_unit, rtol=1e-9, atol=1e-11 * factor)


def test_centred_advantages_that_are_not_normalised_are_in_the_unit_of_the_reward() -> None:
    tree = complete(1, 2, 1)
    advantage = gained(tree, torch.tensor([1.0, 4.0]), Uniform(), Prompt(), normalise=False)
    assert advantage.tolist() == pytest.approx([0, -1.5, 1.5], abs=1e-14)


@pytest.mark.parametrize(("branching_factor", "depth"), [(2, 1), (2, 3), (3, 3), (3, 4)])
@pytest.mark.parametrize("normaliser", NORMALISERS, ids=name)
@pytest.mark.parametrize("normalise", [True, False])
def test_equal_rewards_teach_exactly_nothing(
    branching_factor: int, depth: int, normaliser: Normaliser, normalise: bool
) -> None:
    trees = 3000 if normalise else 100
    tree = complete(trees, branching_factor, depth)
    generator = torch.Generator().manual_seed(5)
    size = 10 ** (16 * torch.rand(trees, generator=generator, dtype=torch.float64) - 8)
    constant = size * torch.randn(trees, generator=generator, dtype=torch.float64).sign()
    score = constant.float().repeat_interleave(branching_factor**depth)
    leaf = normaliser(tree, on_leaves(tree, score)[:, None], torch.ones(1))
    for baseline in BASELINES:
        for weighting in (Uniform(), SoftmaxSumLogProb()):
            credit = advantages(tree, leaf, weighting, baseline, normalise=normalise)
            assert credit.zero_std == trees
            assert torch.equal(credit.advantage, torch.zeros(len(tree), dtype=torch.float64))


def test_rounding_errors_are_not_a_spread_and_a_real_difference_is() -> None:
    tree = complete(2, 2, 1)
    nearly = torch.tensor([0.7, 0.7 + 1e-7, 0.7, 0.7 + 1e-5], dtype=torch.float64)
    credit = advantages(tree, standardised(tree, nearly), Uniform(), Prompt())
    assert credit.zero_std == 1
    assert credit.advantage.tolist() == pytest.approx([0, 0, 0, 0, -1, 1], abs=1e-9)
    # the tolerance is relative to the scores: a difference at 0.7 is a rounding error at 3e4
    assert advantages(tree, standardised(tree, nearly + 3e4), Uniform(), Prompt()).zero_std == 2


def test_a_prompt_without_spread_does_not_touch_the_others() -> None:
    tree = complete(2, 3, 2)
    score = scores(tree, 1)
    score[:9] = 0.25
    credit = advantages(tree, standardised(tree, score), Uniform(), Depth())
    assert credit.zero_std == 1 and float(credit.advantage[tree.task == 1].abs().max()) > 0.1
    assert not credit.advantage[tree.task == 0].any()


def test_advantages_are_clipped_to_both_sides() -> None:
    tree = complete(1, 64, 1)
    score = torch.zeros(64, dtype=torch.float64)
    score[3], score[4] = 1e6, -1e6
    credit = advantages(tree, standardised(tree, score), Uniform(), Prompt(), clip=5.0)
    assert float(credit.advantage.max()) == 5 and float(credit.advantage.min()) == -5


@pytest.mark.parametrize(
    "broken",
    [lambda w: w * 2, lambda w: -w, lambda w: w * float("nan"), lambda w: w[:, :1]],
    ids=["sum", "sign", "nan", "shape"],
)
def test_a_weighting_that_breaks_its_contract_is_named(
    broken: Callable[[Tensor], Tensor],
) -> None:
    class Broken(Weighting):
        def __call__(self, siblings: Family) -> Tensor:
            return broken(torch.full_like(siblings.value, 1 / siblings.value.shape[1]))

    tree = complete(1, 2, 2)
    with pytest.raises(NumericsError, match="weighting Broken: expected"):
        back_up(tree, on_leaves(tree, scores(tree, 0)), Broken())


def test_softmax_weights_are_those_of_the_logits_over_the_temperature() -> None:
    family = Family(
        value=torch.tensor([[0.0, 1.0]]),
        log_prob=torch.tensor([[math.log(0.2), math.log(0.6)]]),
        dims=2,
        step=0,
        steps=1,
        depth=1,
        iteration=0,
    )
    expected = {
        SoftmaxMeanLogProb(): 3,
        SoftmaxMeanLogProb(0.5): 9,
        SoftmaxSumLogProb(): 9,
        SoftmaxSumLogProb(4.0): math.sqrt(3),
        SoftmaxValue(): math.e,
        SoftmaxValue(0.5): math.e**2,
    }
    for weighting, odds in expected.items():
        assert weighting(family)[0].tolist() == pytest.approx(
            [1 / (1 + odds), odds / (1 + odds)], rel=1e-6
        )


def test_a_node_that_is_scored_keeps_its_score_and_backs_it_up() -> None:
    tree = complete(1, 2, 2)  # nodes 0 | 1 2 | 3 4 5 6
    value = torch.tensor([math.nan, 10.0, math.nan, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    backup = back_up(tree, value, Uniform())
    assert backup.values.tolist() == [6.75, 10.0, 3.5, 1.0, 2.0, 3.0, 4.0]


def test_a_prompt_that_has_no_tree_left_is_not_counted_as_one_without_spread() -> None:
    tree = complete(3, 2, 1)
    for dropped in range(3):
        rest = tree.without(torch.tensor([dropped]))
        leaf = standardised(rest, scores(rest, 1))
        assert advantages(rest, leaf, Uniform(), Prompt()).zero_std == 0
