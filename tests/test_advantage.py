"""Advantages: what adds up to zero, what does not change them, and what gives exactly nothing."""

import math
from dataclasses import dataclass

import pytest
import torch
from forests import complete, ragged, scores
from torch import Tensor

from treerl.engine.advantage import advantages, combine, standardise
from treerl.engine.baseline import Baseline, Depth, LeaveSubtreeOut, ParentGain, Prompt, Siblings
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
BASELINES = (Prompt(), Depth(), Siblings(), ParentGain(), LeaveSubtreeOut())


def gained(
    tree: Tree,
    score: Tensor,
    weighting: Weighting,
    baseline: Baseline,
    normalise: bool = True,
    clip: float = INF,
) -> Tensor:
    return advantages(
        tree, standardise(tree, score, 1e-12), weighting, baseline, normalise, clip
    ).advantage


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_q14_weighted_sums_vanish_at_every_node_and_every_depth(
    weighting: Weighting, normalise: bool, seed: int
) -> None:
    tree = ragged(seed)
    leaf = standardise(tree, scores(tree, seed))
    values = back_up(tree, leaf.leaf, weighting)
    advantage = advantages(tree, leaf, weighting, Prompt(), normalise, INF).advantage
    inner = torch.arange(tree.sizes[0], len(tree))
    above = tree.parent[inner]
    gap = values.share[inner] / values.share[above] * (advantage[inner] - advantage[above])
    assert (
        float(torch.zeros(len(tree), dtype=torch.float64).index_add(0, above, gap).abs().max())
        <= 1e-12
    )
    for step in range(len(tree.sizes)):
        level = tree.level(step)
        part = torch.zeros(3, dtype=torch.float64)
        assert torch.allclose(
            part.index_add(0, tree.prompt[level], values.share[level]), part + 1, rtol=0, atol=1e-12
        )
        part.index_add_(0, tree.prompt[level], values.share[level] * advantage[level])
        assert float(part.abs().max()) <= 1e-12


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: type(one).__name__)
def test_the_baselines_are_given_the_weights_that_made_the_values(weighting: Weighting) -> None:
    # with its own complement's mean: V·share + centre·(1 - share) is the prompt's mean at every node
    tree = ragged(9)
    values = back_up(tree, scores(tree, 9), weighting)
    centre = LeaveSubtreeOut()(tree, values).centre
    whole = Prompt()(tree, values).centre
    partial = values.share < 1 - 1e-9
    mixed = values.value * values.share + centre * (1 - values.share)
    assert torch.allclose(mixed[partial], whole[partial], rtol=0, atol=1e-12)
    assert torch.equal(centre[~partial], values.value[~partial])


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("baseline", BASELINES, ids=lambda one: type(one).__name__)
def test_q15_a_constant_does_not_change_advantages_and_a_factor_does_as_declared(
    weighting: Weighting, baseline: Baseline
) -> None:
    tree = ragged(4)
    score = (scores(tree, 4) * 2**20).round() / 2**20  # so that adding 1e6 rounds nothing away
    plain = {
        normalise: gained(tree, score, weighting, baseline, normalise)
        for normalise in (True, False)
    }
    assert float(plain[True].abs().max()) > 0.5
    for constant in (-1e6, -3.0, 0.5, 1e6):
        for normalise, expected in plain.items():
            found = gained(tree, score + constant, weighting, baseline, normalise)
            assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    for factor in (1e-6, 0.1, 7.0, 1e6):
        found = gained(tree, score * factor, weighting, baseline, True)
        assert torch.allclose(found, plain[True], rtol=1e-9, atol=1e-11)
        found = gained(tree, score * factor, weighting, baseline, False)
        assert torch.allclose(found, factor * plain[False], rtol=1e-9, atol=1e-11 * factor)


def test_not_normalised_advantages_are_in_the_unit_of_the_reward() -> None:
    tree = complete(1, 2, 1)
    advantage = gained(tree, torch.tensor([1.0, 4.0]), Uniform(), Prompt(), normalise=False)
    assert advantage.tolist() == pytest.approx([0, -1.5, 1.5], abs=1e-14)


def test_scores_are_standardised_by_the_population_std_of_their_own_prompt() -> None:
    tree = ragged(2)
    score = scores(tree, 2) * (1 + 10 * tree.prompt[tree.leaves]) + 100 * tree.prompt[tree.leaves]
    leaf = standardise(tree, score)
    for prompt in range(3):
        mine = score[tree.prompt[tree.leaves] == prompt]
        expected = (mine - mine.mean()) / mine.std(correction=0)
        assert torch.allclose(
            leaf.leaf[tree.prompt[tree.leaves] == prompt], expected, rtol=0, atol=1e-12
        )
        assert float(leaf.spread[prompt]) == pytest.approx(float(mine.std(correction=0)), rel=1e-12)


@pytest.mark.parametrize(("branch", "depth"), [(2, 1), (2, 3), (3, 3), (3, 4)])
@pytest.mark.parametrize("normalise", [True, False])
def test_n5_equal_rewards_teach_exactly_nothing(branch: int, depth: int, normalise: bool) -> None:
    tree = complete(3000, branch, depth)
    generator = torch.Generator().manual_seed(5)
    size = 10 ** (16 * torch.rand(3000, generator=generator, dtype=torch.float64) - 8)
    constant = size * torch.randn(3000, generator=generator, dtype=torch.float64).sign()
    score = constant.float().repeat_interleave(branch**depth)
    for baseline in BASELINES:
        for weighting in (Uniform(), SoftmaxSumLogProb()):
            found = advantages(tree, standardise(tree, score), weighting, baseline, normalise)
            assert found.flat == 3000
            assert torch.equal(found.advantage, torch.zeros(len(tree), dtype=torch.float64))


def test_n10_rounding_errors_are_not_a_spread_and_a_real_difference_is() -> None:
    tree = complete(2, 2, 1)
    nearly = torch.tensor([0.7, 0.7 + 1e-7, 0.7, 0.7 + 1e-5], dtype=torch.float64)
    found = advantages(tree, standardise(tree, nearly), Uniform(), Prompt())
    assert found.flat == 1
    assert found.advantage.tolist() == pytest.approx([0, 0, 0, 0, -1, 1], abs=1e-9)
    # the tolerance is relative to the scores: what is a difference at 0.7 is a rounding error at 3e4
    assert advantages(tree, standardise(tree, nearly + 3e4), Uniform(), Prompt()).flat == 2


def test_a_prompt_without_spread_does_not_touch_the_others() -> None:
    tree = complete(2, 3, 2)
    score = scores(tree, 1)
    score[:9] = 0.25
    found = advantages(tree, standardise(tree, score), Uniform(), Depth())
    assert found.flat == 1 and float(found.advantage[tree.prompt == 1].abs().max()) > 0.1
    assert not found.advantage[tree.prompt == 0].any()


def test_rewards_are_standardised_each_in_its_prompt_and_then_added() -> None:
    tree = complete(2, 2, 2)
    both = torch.stack([scores(tree, 1, 100.0), scores(tree, 2, 0.01)], 1)
    weight = torch.tensor([0.8, 0.2], dtype=torch.float64)
    found = combine(tree, both, weight, apart=True, tolerance=1e-9)
    apart = [standardise(tree, column, 1e-9) for column in both.unbind(1)]
    assert torch.allclose(found.leaf, 0.8 * apart[0].leaf + 0.2 * apart[1].leaf, rtol=0, atol=1e-14)
    raw = combine(tree, both, weight, apart=False, tolerance=1e-9)
    assert torch.equal(raw.spread, standardise(tree, both @ weight, 1e-9).spread)


def test_one_constant_reward_of_two_adds_nothing() -> None:
    tree = complete(2, 2, 2)
    both = torch.stack([scores(tree, 1), torch.full((8,), 0.3, dtype=torch.float64)], 1)
    found = combine(tree, both, torch.tensor([1.0, 1.0]), apart=True, tolerance=1e-6)
    assert torch.equal(found.leaf, standardise(tree, both[:, 0]).leaf)
    assert bool((found.spread > 0).all())


@pytest.mark.parametrize("bad", [float("nan"), INF, -INF])
def test_a_score_that_is_not_finite_is_refused(bad: float) -> None:
    tree = complete(1, 2, 1)
    with pytest.raises(NumericsError, match="not finite"):
        combine(tree, torch.tensor([[0.0], [bad]]), torch.ones(1), apart=True, tolerance=1e-6)


def test_advantages_are_clipped_to_both_sides() -> None:
    tree = complete(1, 64, 1)
    score = torch.zeros(64, dtype=torch.float64)
    score[3], score[4] = 1e6, -1e6
    found = advantages(
        tree, standardise(tree, score), Uniform(), Prompt(), True, clip=5.0
    ).advantage
    assert float(found.max()) == 5 and float(found.min()) == -5


@pytest.mark.parametrize(
    "broken",
    [lambda w: w * 2, lambda w: -w, lambda w: w * float("nan"), lambda w: w[:, :1]],
    ids=["sum", "sign", "nan", "shape"],
)
def test_a_weighting_that_breaks_its_contract_is_named(broken: object) -> None:
    class Broken(Weighting):
        def __call__(self, siblings: Family) -> Tensor:
            found = broken(torch.full_like(siblings.value, 1 / siblings.value.shape[1]))  # type: ignore[operator]
            assert isinstance(found, Tensor)
            return found

    tree = complete(1, 2, 2)
    with pytest.raises(NumericsError, match="weighting Broken: expected"):
        back_up(tree, scores(tree, 0), Broken())


def test_softmax_weights_are_those_of_the_logits_over_the_temperature() -> None:
    family = Family(
        torch.tensor([[0.0, 1.0]]), torch.tensor([[math.log(0.2), math.log(0.6)]]), dims=2
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
