"""Orders and cuts that must not matter: of siblings, of trees, of prompts, of micro-batches."""

from dataclasses import replace

import pytest
import torch
from forests import complete, moved_scores, permuted, ragged, scores, standardised
from oracle import KERNELS, Neural, schedule
from plain import edges, leaf_totals, path, roots
from torch import Tensor

from treerl.engine import noise
from treerl.engine.advantage import advantages
from treerl.engine.baseline import Baseline, Depth, LeaveSubtreeOut, ParentGain, Prompt, Siblings
from treerl.engine.grow import grow
from treerl.engine.minibatch import Reduction, minibatches
from treerl.engine.objective import Clipped
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weighting import (
    SoftmaxMeanLogProb,
    SoftmaxSumLogProb,
    SoftmaxValue,
    Uniform,
    Weighting,
)

WEIGHTINGS = (Uniform(), SoftmaxMeanLogProb(), SoftmaxSumLogProb(0.5), SoftmaxValue(2.0))
BASELINES = (Prompt(), Depth(), Siblings(), ParentGain(), LeaveSubtreeOut())


def name(part: object) -> str:
    return type(part).__name__


REDUCTIONS: tuple[Reduction, ...] = ("nodes", "edges", "depths")


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=name)
@pytest.mark.parametrize("baseline", BASELINES, ids=name)
@pytest.mark.parametrize("trees", [False, True], ids=["siblings", "trees"])
def test_advantages_move_along_with_siblings_and_trees(
    weighting: Weighting, baseline: Baseline, trees: bool
) -> None:
    for seed in range(4):
        tree = ragged(seed)
        other, order = permuted(tree, seed + 50, trees)
        assert not torch.equal(order, torch.arange(len(tree)))
        score = scores(tree, seed)
        plain = advantages(tree, standardised(tree, score), weighting, baseline)
        moved = advantages(
            other, standardised(other, moved_scores(tree, score, order)), weighting, baseline
        )
        # dividing by the spread of a family that nearly agrees magnifies rounding
        tolerance = 1e-10 if isinstance(baseline, Siblings) else 1e-13
        assert torch.allclose(moved.advantage, plain.advantage[order], rtol=0, atol=tolerance)
        assert torch.allclose(moved.values, plain.values[order], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("baseline", BASELINES, ids=name)
def test_the_numbers_of_the_prompts_do_not_matter(baseline: Baseline) -> None:
    tree = ragged(6)
    relabelled = replace(tree, task=torch.tensor([2, 0, 1])[tree.task])
    score = scores(tree, 6)
    plain = advantages(tree, standardised(tree, score), Uniform(), baseline)
    moved = advantages(relabelled, standardised(relabelled, score), Uniform(), baseline)
    assert torch.allclose(plain.advantage, moved.advantage, rtol=0, atol=1e-14)


def test_prompts_do_not_reach_into_each_other() -> None:
    tree = ragged(7)
    score = scores(tree, 7)
    mine = tree.task[tree.leaves] == 1
    for baseline in BASELINES:
        for weighting in WEIGHTINGS:
            plain = advantages(tree, standardised(tree, score), weighting, baseline).advantage
            changed = torch.where(mine, score, score.flip(0).exp())
            other = advantages(tree, standardised(tree, changed), weighting, baseline).advantage
            same = tree.task == 1
            assert torch.allclose(plain[same], other[same], rtol=0, atol=1e-13)
            assert not torch.allclose(plain[tree.task == 0], other[tree.task == 0], atol=1e-3)


def learned(
    env: Neural, tree: Tree, score: Tensor, rows: int, reduction: Reduction, seed: int = 0
) -> tuple[float, Tensor]:
    """Loss and gradient of one optimizer step over the forest, in micro-batches of `rows` nodes."""
    weights = list(env.network.parameters())
    credit = advantages(tree, standardised(tree, score), Uniform(), LeaveSubtreeOut())
    loss = 0.0
    gradient = torch.zeros(sum(weight.numel() for weight in weights), dtype=torch.float64)
    generator = noise.generator(seed)
    for batch in minibatches(tree, tree.stochastic, 1, rows, generator, reduction)[0]:
        policy = env.policy(tree.at(batch.parents), stochastic=True).take(batch.owner)
        value = Clipped(1e-3)(policy, edges(tree, batch.children, credit.advantage)).value
        part = (value * batch.weight).sum()
        loss += part.item()
        gradient += torch.cat([grad.flatten() for grad in torch.autograd.grad(part, weights)])
    return loss, gradient


def rollout() -> tuple[Neural, Tree, Tensor]:
    """A forest with an odd number of nodes at unequal depths, and a world that has moved since."""
    env = Neural(KERNELS[0], schedule(6, 3), (3,), torch.float64, width=5, dtype=torch.float64)
    tree = grow(
        env, roots(3), TreeSpec((1, 3, 1, 2, 1, 1), (False, True, True, True, False, False)), 8
    )
    with torch.no_grad():
        for weight in env.network.parameters():
            weight.add_(torch.cos(torch.arange(weight.numel())).view_as(weight), alpha=0.02)
    return env, tree, leaf_totals(tree)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_and_gradient_do_not_change_with_the_order_of_siblings_and_trees(
    reduction: Reduction,
) -> None:
    env, tree, score = rollout()
    loss, gradient = learned(env, tree, score, 64, reduction)
    for seed in range(3):
        other, order = permuted(tree, seed)
        moved_loss, moved_gradient = learned(
            env, other, moved_scores(tree, score, order), 64, reduction, seed
        )
        assert moved_loss == pytest.approx(loss, rel=1e-12)
        assert torch.allclose(moved_gradient, gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("rows", [1, 2, 5, 8, 21, 100])
def test_loss_and_gradient_do_not_change_with_the_cut_into_micro_batches(
    reduction: Reduction, rows: int
) -> None:
    env, tree, score = rollout()
    assert len(set(tree.parent[tree.edges].tolist())) == 21
    loss, gradient = learned(env, tree, score, 21, reduction)
    cut_loss, cut_gradient = learned(env, tree, score, rows, reduction, seed=rows)
    assert cut_loss == pytest.approx(loss, rel=1e-12)
    assert torch.allclose(cut_gradient, gradient, rtol=1e-10, atol=1e-14)
    assert float(gradient.abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("branching_factor", "depth", "tasks"), [(2, 1, 1), (3, 2, 1), (2, 3, 3), (1, 4, 5), (3, 3, 2)]
)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_leaf_of_a_rollout_counts_the_same(
    branching_factor: int, depth: int, tasks: int, reduction: Reduction
) -> None:
    tree = complete(tasks, branching_factor, depth)
    weight = weights_of(tree, tree.stochastic, reduction)
    each = []
    for leaf in leaves(tree):
        each.append(sum(weight[node] / below(tree, node) for node in path(tree, leaf)))
    assert each == pytest.approx([each[0]] * len(each), rel=1e-12)
    nodes = len(set(tree.parent[tree.edges].tolist()))
    expected = {"nodes": len(tree.edges) / nodes, "edges": 1.0, "depths": 1.0}[reduction]
    assert sum(each) == pytest.approx(expected, rel=1e-12)


def weights_of(tree: Tree, trained: Tensor, reduction: Reduction) -> list[float]:
    """The weight of every edge in the one optimizer step of an iteration."""
    weight = torch.zeros(len(tree), dtype=torch.float64)
    for batch in minibatches(tree, trained, 1, 4, noise.generator(0), reduction)[0]:
        weight[batch.children] += batch.weight
    return [float(number) for number in weight]


@pytest.mark.parametrize("seed", range(6))
def test_each_trained_edge_weighs_what_its_reduction_says_and_the_others_nothing(seed: int) -> None:
    tree = ragged(seed)
    draws = torch.rand(len(tree), generator=torch.Generator().manual_seed(seed))
    trained = tree.stochastic & (draws < 0.4)
    children = trained.nonzero().flatten().tolist()
    parents = {int(tree.parent[node]) for node in children}
    steps = [int(tree.step[node]) for node in children]
    depths = {node: 1 / len(set(steps)) / steps.count(int(tree.step[node])) for node in children}
    expected = {
        "nodes": dict.fromkeys(children, 1 / len(parents)),
        "edges": dict.fromkeys(children, 1 / len(children)),
        "depths": depths,
    }
    for reduction in REDUCTIONS:
        weight = weights_of(tree, trained, reduction)
        assert len(set(tree.parent[children].tolist())) < len(children)
        for node in range(len(tree)):
            want = expected[reduction].get(node, 0.0)
            assert weight[node] == pytest.approx(want, rel=1e-12)


def test_an_edge_that_was_not_sampled_is_never_trained() -> None:
    tree = ragged(1)
    everything = torch.ones(len(tree), dtype=torch.bool)
    weight = torch.tensor(weights_of(tree, everything, "edges"))
    assert torch.equal(weight > 0, tree.stochastic)


def leaves(tree: Tree) -> list[int]:
    nodes: list[int] = tree.leaves.tolist()
    return nodes


def below(tree: Tree, node: int) -> int:
    return sum(node in path(tree, leaf) for leaf in leaves(tree))


@pytest.mark.parametrize("count", range(1, 6))
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_weights_of_every_optimizer_step_sum_to_one_and_no_node_is_left_over(
    count: int, reduction: Reduction
) -> None:
    for nodes in range(count, 18):
        tree = complete(nodes, 1, 1)
        generator = noise.generator(nodes)
        steps = minibatches(tree, tree.stochastic, count, 3, generator, reduction)
        assert len(steps) == count
        for batches in steps:
            assert abs(sum(float(batch.weight.sum()) for batch in batches) - 1) <= 1e-12
        used = torch.cat([batch.children for batches in steps for batch in batches])
        assert torch.equal(used.sort().values, tree.edges)
        assert all(len(batch.parents) == 3 for batches in steps for batch in batches)
        assert sum(batch.real for batches in steps for batch in batches) == nodes


def test_optimizer_steps_mix_nodes_of_all_depths_and_others_in_every_iteration() -> None:
    tree = complete(8, 2, 3)

    def halves(seed: int) -> list[set[int]]:
        steps = minibatches(tree, tree.stochastic, 2, 64, noise.generator(seed))
        return [set(batches[0].parents[: batches[0].real].tolist()) for batches in steps]

    depths = [{int(tree.step[node]) for node in half} for half in halves(0)]
    assert depths == [{0, 1, 2}, {0, 1, 2}]
    assert halves(0) == halves(0) != halves(1)
    assert halves(0)[0] | halves(0)[1] == set(range(8 * 7))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_padding_has_no_edges(reduction: Reduction) -> None:
    tree = ragged(3)
    for batches in minibatches(tree, tree.stochastic, 3, 4, noise.generator(3), reduction):
        for batch in batches:
            assert int(batch.owner.max()) < batch.real
            assert torch.equal(batch.parents[batch.owner], tree.parent[batch.children])
