"""Orders and cuts that must not matter: of siblings, of trees, of prompts, of micro-batches."""

import pytest
import torch
from forests import complete, moved_scores, permuted, ragged, scores
from oracle import KERNELS, Neural, edges, planted, schedule
from torch import Tensor

from treerl.engine import noise
from treerl.engine.advantage import advantages, standardise
from treerl.engine.baseline import Baseline, Depth, LeaveSubtreeOut, ParentGain, Prompt, Siblings
from treerl.engine.branching import Shape
from treerl.engine.env import Env
from treerl.engine.grow import grow
from treerl.engine.minibatch import Reduce, minibatches
from treerl.engine.objective import Clipped
from treerl.engine.tree import Tree
from treerl.engine.weighting import (
    SoftmaxMeanLogProb,
    SoftmaxSumLogProb,
    SoftmaxValue,
    Uniform,
    Weighting,
)

WEIGHTINGS = (Uniform(), SoftmaxMeanLogProb(), SoftmaxSumLogProb(0.5), SoftmaxValue(2.0))
BASELINES = (Prompt(), Depth(), Siblings(), ParentGain(), LeaveSubtreeOut())
REDUCES: tuple[Reduce, ...] = ("nodes", "edges", "depths")


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("baseline", BASELINES, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("roots", [False, True], ids=["siblings", "trees"])
def test_q12_q13_advantages_move_along_with_siblings_and_trees(
    weighting: Weighting, baseline: Baseline, roots: bool
) -> None:
    for seed in range(4):
        tree = ragged(seed)
        other, order = permuted(tree, seed + 50, roots)
        assert not torch.equal(order, torch.arange(len(tree)))
        score = scores(tree, seed)
        plain = advantages(tree, standardise(tree, score), weighting, baseline)
        moved = advantages(
            other, standardise(other, moved_scores(tree, score, order)), weighting, baseline
        )
        # dividing by the spread of a family that nearly agrees magnifies rounding
        tolerance = 1e-10 if isinstance(baseline, Siblings) else 1e-13
        assert torch.allclose(moved.advantage, plain.advantage[order], rtol=0, atol=tolerance)
        assert torch.allclose(moved.value, plain.value[order], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda one: type(one).__name__)
def test_q13_the_numbers_of_the_prompts_do_not_matter(baseline: Baseline) -> None:
    tree, relabelled = ragged(6), ragged(6)
    relabelled.prompt.copy_(torch.tensor([2, 0, 1])[tree.prompt])
    score = scores(tree, 6)
    one, other = (
        advantages(t, standardise(t, score), Uniform(), baseline).advantage
        for t in (tree, relabelled)
    )
    assert torch.allclose(one, other, rtol=0, atol=1e-14)


def test_prompts_do_not_reach_into_each_other() -> None:
    tree = ragged(7)
    score = scores(tree, 7)
    mine = tree.prompt[tree.leaves] == 1
    for baseline in BASELINES:
        for weighting in WEIGHTINGS:
            one = advantages(tree, standardise(tree, score), weighting, baseline).advantage
            changed = torch.where(mine, score, score.flip(0).exp())
            other = advantages(tree, standardise(tree, changed), weighting, baseline).advantage
            assert torch.allclose(
                one[tree.prompt == 1], other[tree.prompt == 1], rtol=0, atol=1e-13
            )
            assert not torch.allclose(one[tree.prompt == 0], other[tree.prompt == 0], atol=1e-3)


def learned(
    env: Neural, tree: Tree, score: Tensor, rows: int, reduce: Reduce, seed: int = 0
) -> tuple[float, Tensor]:
    """Loss and gradient of one optimizer step over the whole forest, in micro-batches of `rows` nodes."""
    weights = list(env.network.parameters())
    found = advantages(tree, standardise(tree, score), Uniform(), LeaveSubtreeOut()).advantage
    loss, gradient = (
        0.0,
        torch.zeros(sum(weight.numel() for weight in weights), dtype=torch.float64),
    )
    for batch in minibatches(tree, 1, rows, noise.generator(seed), reduce=reduce)[0]:
        policy = env.policy(tree.at(batch.parents), stochastic=True).take(batch.owner)
        part = (
            Clipped(1e-3)(policy, edges(tree, batch.children, found)).value * batch.weight
        ).sum()
        loss += part.item()
        gradient += torch.cat([one.flatten() for one in torch.autograd.grad(part, weights)])
    return loss, gradient


def rollout() -> tuple[Neural, Tree, Tensor]:
    """A forest with an odd number of nodes at unequal depths, and an environment that has moved since."""
    env = Neural(KERNELS[0], schedule(6, 3), (3,), torch.float64, width=5, dtype=torch.float64)
    tree = grow(
        env, planted(3), Shape((1, 3, 1, 2, 1, 1), (False, True, True, True, False, False), 1), 8
    )
    with torch.no_grad():
        for weight in env.network.parameters():
            weight.add_(torch.cos(torch.arange(weight.numel())).view_as(weight), alpha=0.02)
    return env, tree, env.reward(tree.at(tree.leaves))[:, 0]


@pytest.mark.parametrize("reduce", REDUCES)
def test_q12_loss_and_gradient_do_not_change_with_the_order_of_siblings_and_trees(
    reduce: Reduce,
) -> None:
    env, tree, score = rollout()
    loss, gradient = learned(env, tree, score, 64, reduce)
    for seed in range(3):
        other, order = permuted(tree, seed)
        moved_loss, moved_gradient = learned(
            env, other, moved_scores(tree, score, order), 64, reduce, seed
        )
        assert moved_loss == pytest.approx(loss, rel=1e-12)
        assert torch.allclose(moved_gradient, gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("rows", [1, 2, 5, 8, 21, 100])
def test_q13_q21_loss_and_gradient_do_not_change_with_the_cut_into_micro_batches(
    reduce: Reduce, rows: int
) -> None:
    env, tree, score = rollout()
    assert len(set(tree.parent[tree.edges].tolist())) == 21
    loss, gradient = learned(env, tree, score, 21, reduce)
    cut_loss, cut_gradient = learned(env, tree, score, rows, reduce, seed=rows)
    assert cut_loss == pytest.approx(loss, rel=1e-12)
    assert torch.allclose(cut_gradient, gradient, rtol=1e-10, atol=1e-14)
    assert float(gradient.abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("branch", "depth", "prompts"), [(2, 1, 1), (3, 2, 1), (2, 3, 3), (1, 4, 5), (3, 3, 2)]
)
@pytest.mark.parametrize("reduce", REDUCES)
def test_q21_every_leaf_of_a_rollout_counts_the_same(
    branch: int, depth: int, prompts: int, reduce: Reduce
) -> None:
    tree = complete(prompts, branch, depth)
    weight = torch.zeros(len(tree), dtype=torch.float64)
    for batch in minibatches(tree, 1, 4, noise.generator(0), reduce=reduce)[0]:
        weight[batch.children] += batch.weight
    each = [
        sum(float(weight[node]) / below(tree, node) for node in tree.path(leaf))
        for leaf in leaves(tree)
    ]
    assert each == pytest.approx([each[0]] * len(each), rel=1e-12)
    nodes = len(set(tree.parent[tree.edges].tolist()))
    expected = {"nodes": len(tree.edges) / nodes, "edges": 1.0, "depths": 1.0}[reduce]
    assert sum(each) == pytest.approx(expected, rel=1e-12)


def leaves(tree: Tree) -> list[int]:
    found: list[int] = tree.leaves.tolist()
    return found


def below(tree: Tree, node: int) -> int:
    return sum(node in tree.path(leaf) for leaf in leaves(tree))


@pytest.mark.parametrize("updates", range(1, 6))
@pytest.mark.parametrize("reduce", REDUCES)
def test_n14_the_weights_of_every_optimizer_step_sum_to_one_and_no_node_is_left_over(
    updates: int, reduce: Reduce
) -> None:
    for nodes in range(updates, 18):
        tree = complete(nodes, 1, 1)
        steps = minibatches(tree, updates, 3, noise.generator(nodes), reduce=reduce)
        assert len(steps) == updates
        for batches in steps:
            assert abs(sum(float(batch.weight.sum()) for batch in batches) - 1) <= 1e-12
        used = torch.cat([batch.children for batches in steps for batch in batches])
        assert torch.equal(used.sort().values, tree.edges)
        assert all(len(batch.parents) == 3 for batches in steps for batch in batches)
        assert sum(batch.real for batches in steps for batch in batches) == nodes


@pytest.mark.parametrize("reduce", REDUCES)
def test_padding_has_no_edges(reduce: Reduce) -> None:
    tree = ragged(3)
    for batches in minibatches(tree, 3, 4, noise.generator(3), reduce=reduce):
        for batch in batches:
            assert int(batch.owner.max()) < batch.real
            assert torch.equal(batch.parents[batch.owner], tree.parent[batch.children])


def test_the_environment_contract_needs_every_method() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Env()  # type: ignore[abstract]
