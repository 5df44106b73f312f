"""Branchings, selections and objectives of published methods, beyond the formulas of recipes."""

import numpy as np
import pytest
import torch
from forests import complete
from oracle import KERNELS, Neural, schedule
from plain import edges, no_weights, plain_edges, replay, roots
from torch import Tensor

from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import window
from treerl.engine.branchings.chain import Chain
from treerl.engine.branchings.splits import Splits
from treerl.engine.branchings.star import Star
from treerl.engine.grow import grow
from treerl.engine.kernel import FlowSDE
from treerl.engine.losses import EdgeLosses
from treerl.engine.objective import EdgeObjective
from treerl.engine.objectives.dppo import DPPO
from treerl.engine.objectives.flash import Flash
from treerl.engine.objectives.guard import Guard
from treerl.engine.objectives.noise_aware import NoiseAware
from treerl.engine.policy import Gaussian
from treerl.engine.selection import Selection
from treerl.engine.selections.depths import Depths
from treerl.engine.selections.extremes import Extremes
from treerl.engine.tree import Tree
from treerl.errors import InputError


@pytest.mark.parametrize(
    ("star", "steps", "starts"),
    [
        (Star(4, 1), 10, range(9)),
        (Star(4, 2), 10, range(8)),
        (Star(4, 1, part=0.5), 16, range(8)),
        (Star(4, 1, part=0.29), 100, range(29)),
        (Star(4, 3, part=0.01), 5, range(1)),
    ],
)
def test_a_star_splits_once_at_any_step_of_its_part_alike(
    star: Star, steps: int, starts: range
) -> None:
    distribution = star.distribution(steps, 0)
    assert [spec.start for _, spec in distribution] == list(starts)
    for chance, spec in distribution:
        assert chance == pytest.approx(1 / len(starts)) and spec.leaves == 4
        depth = star.depth
        assert isinstance(depth, int) and sum(spec.stochastic) == depth
        assert spec.children[spec.start] == 4 and sum(spec.children) == steps + 3
        assert not spec.stochastic[-1]


@pytest.mark.parametrize(
    ("steps", "places"),
    [(20, [0, 3, 6, 9]), (10, [0, 1, 3, 4]), (6, [0, 1, 2, 3]), (50, [0, 7, 15, 22])],
)
def test_splits_stand_at_the_same_share_of_any_schedule(steps: int, places: list[int]) -> None:
    for between in (True, False):
        (spec,) = Splits(between=between).support(steps)
        assert [step for step in range(steps) if spec.children[step] == 2] == places
        sampled = [step for step in range(steps) if spec.stochastic[step]]
        assert sampled == (list(range(steps - 1)) if between else places)


def test_splits_that_would_reach_the_last_step_are_refused() -> None:
    with pytest.raises(ValueError, match="before the last of 4 steps, got step 3"):
        Splits().distribution(4, 0)


def test_a_chain_samples_no_step() -> None:
    (spec,) = Chain().support(8)
    assert not any(spec.stochastic) and (spec.leaves, spec.forwards, spec.stored) == (1, 8, 1)


def select(selection: Selection, tree: Tree, advantage: Tensor) -> Tensor:
    return selection(tree, advantage, np.random.default_rng(0))


@pytest.mark.parametrize("count", [1, 2, 5, 13, 40])
def test_extremes_are_the_paths_to_the_best_and_the_worst_leaves_of_each_tree(count: int) -> None:
    tree = complete(2, 3, 3, trees=2)
    generator = torch.Generator().manual_seed(count)
    advantage = torch.randn(len(tree), generator=generator, dtype=torch.float64)
    chosen = select(Extremes(count), tree, advantage)
    root = tree.roots()
    for tree_root in range(4):
        leaves = tree.leaves[root[tree.leaves] == tree_root]
        ranked = sorted(leaves.tolist(), key=lambda leaf: float(advantage[leaf]))
        kept = {*ranked[:count], *ranked[-count:]}
        above = set(kept)
        for node in sorted(range(len(tree)), reverse=True):
            if node in above and int(tree.parent[node]) != Tree.NO_PARENT:
                above.add(int(tree.parent[node]))
        expected = above - {tree_root}
        assert set((chosen & (root == tree_root)).nonzero().flatten().tolist()) == expected


def test_extremes_count_their_edges_as_random_ranks_give_them() -> None:
    spec = window(5, 0, 3, 3)
    tree = grow(Neural(KERNELS[0], schedule(5), (1,), width=1), roots(40, 5), spec, rows=64)
    generator = torch.Generator().manual_seed(0)
    selection = Extremes(3)
    edge_counts = []
    for _ in range(10):
        advantage = torch.randn(len(tree), generator=generator, dtype=torch.float64)
        chosen = select(selection, tree, advantage)
        edge_counts.append(int(chosen.sum()) / 200)
        nodes = torch.unique(tree.parent[chosen])
        per_tree = torch.bincount(tree.roots()[nodes], minlength=200)
        assert int(per_tree.max()) <= selection.decisions(spec) == 1 + 3 + 6
    assert sum(edge_counts) / 10 == pytest.approx(selection.edges(spec), rel=0.005)


def after(selection: Depths, iteration: int) -> Depths:
    """The same selection in a later iteration, as a checkpoint brings it back."""
    other = Depths(selection.size, selection.interval)
    other.restore({"iteration": torch.tensor(iteration)})
    return other


@pytest.mark.parametrize(
    ("iteration", "trained"),
    [
        (0, [0, 1, 2, 7, 8]),
        (29, [0, 1, 2, 7, 8]),
        (30, [0, 1, 2, 3, 8]),
        (60, [0, 1, 2, 3, 4]),
        (600, [0, 1, 2, 3, 4]),
    ],
)
def test_the_pruned_depths_begin_at_the_last_split_and_move_down(
    iteration: int, trained: list[int]
) -> None:
    (spec,) = Splits(2, 2, spacing=0.3).support(10)  # splits at 0 and 3
    tree = grow(Neural(KERNELS[0], schedule(10), (1,), width=1), roots(2), spec, rows=16)
    selection = after(Depths(4, interval=30), iteration)
    chosen = select(selection, tree, torch.zeros(len(tree)))
    assert torch.unique(tree.step[chosen] - 1).tolist() == trained
    assert int(chosen.sum()) == 2 * selection.edges(spec)
    assert len(torch.unique(tree.parent[chosen])) == 2 * selection.decisions(spec)
    assert selection.decisions(spec) <= spec.decisions


def test_pruned_depths_keep_the_first_step_and_trees_without_a_split() -> None:
    (chain,) = Splits(1, 1).support(6)
    assert Depths(9).edges(chain) == chain.edges == 5
    (early,) = Splits(3, 1).support(6)
    assert Depths(9).decisions(early) == 1 and Depths(9).edges(early) == 3


def test_the_memory_of_pruned_depths_is_one_tensor_by_its_name() -> None:
    with pytest.raises(ValueError, match="expected the tensor 'iteration', got steps"):
        Depths().restore({"steps": torch.tensor(1)})
    assert after(Depths(), 7).state() == {"iteration": torch.tensor(7)}


def slopes(objective: EdgeObjective) -> list[float]:
    """|d loss / d velocity| in units of A |z| at every step but the last, before any update."""
    env = Neural(FlowSDE(0.7), schedule(10, 3), (4,), torch.float64, dtype=torch.float64)
    (spec,) = Splits(1, 1).support(10)
    tree = grow(env, roots(1), spec, rows=4)
    losses = EdgeLosses(
        env, tree, torch.ones(len(tree)), Algorithm(objective=objective), 16, no_weights
    )
    found = []
    for step in range(9):
        edge = tree.edges[tree.step[tree.edges] == step + 1]
        state = tree.at(tree.parent[edge])
        velocity = env.velocity(state).detach().requires_grad_()
        policy = env.noisy.gaussian(state.x, velocity, state.step)
        stored = losses._edges(edge, None)
        loss = objective(policy, stored).value.sum()
        slope = torch.autograd.grad(loss, velocity)[0]
        found.append(float(slope.norm() / stored.noise.norm()))
    return found


def test_flash_gives_every_step_a_slope_of_the_same_size() -> None:
    rectified = slopes(Flash())
    assert max(rectified) == pytest.approx(min(rectified), rel=1e-6)


def test_guard_gives_every_step_but_the_guarded_first_a_slope_of_the_same_size() -> None:
    # ∂μ/∂v / Δ = 1 + g² (1-σ) / (2σ) = 1 + a²/2 of Flow-GRPO's g, but at σ = 1
    reweighted = slopes(Guard())
    assert max(reweighted[1:]) == pytest.approx(min(reweighted[1:]), rel=1e-6)
    assert reweighted[1] == pytest.approx((1 + 0.7**2 / 2) / 4, rel=1e-6)
    plain = slopes(Guard(reweight=False))
    assert max(plain[1:]) > 2 * min(plain[1:])


def test_noise_aware_slopes_follow_the_fall_of_the_noise_level() -> None:
    aware = torch.tensor(slopes(NoiseAware()), dtype=torch.float64)
    fall = -schedule(10, 3).sigma.diff()[:-1]
    share = aware[1:] / fall[1:]
    assert float(share.max()) == pytest.approx(float(share.min()), rel=1e-6)


@pytest.mark.parametrize("objective", [NoiseAware(), Flash()])
def test_objectives_that_compare_steps_say_so_where_no_kernel_takes_them(
    objective: NoiseAware | Flash,
) -> None:
    zeros = torch.zeros(1, 2)
    policy = Gaussian(zeros, torch.ones(1))
    name = type(objective).__name__
    with pytest.raises(InputError, match=f"^objective: {name} compares steps, and env.step_coeff"):
        objective(policy, plain_edges(zeros, torch.zeros(1), torch.ones(1)))


@pytest.mark.parametrize("objective", [Guard(), DPPO()])
def test_objectives_that_read_means_say_so_of_policies_that_have_none(
    objective: Guard | DPPO,
) -> None:
    tree = complete(1, 2, 1)
    stored = edges(tree, tree.edges, torch.ones(len(tree)))
    with pytest.raises(InputError, match="reads means and stds of Gaussian steps, got Words"):
        objective(Words(), stored)  # type: ignore[arg-type]


class Words:
    """Stands for a discrete policy."""


def test_dppo_has_a_kl_to_the_start_of_its_weight() -> None:
    env = Neural(KERNELS[0], schedule(6, 3), (3,), torch.float64, dtype=torch.float64)
    tree = grow(env, roots(2), window(6, 1, 2, 2), rows=8)
    policy = replay(env, tree, tree.edges)
    start = Gaussian(policy.mean.detach() + 0.3, policy.std)
    stored = edges(tree, tree.edges, torch.ones(len(tree)), start)
    gap = DPPO(kl=2.0)(policy, stored).value - DPPO()(policy, stored).value
    assert torch.allclose(gap, 2 * 0.3**2 / (2 * policy.std**2), rtol=1e-9, atol=0)
    assert DPPO(kl=2.0).weight_set == "start" and DPPO().weight_set is None
