"""Coupled siblings: each alone is an exact draw, and together they are what the coupling says."""

import math

import numpy as np
import pytest
import torch
from oracle import Neural, schedule
from plain import no_weights, roots
from torch import Tensor

from treerl.config.resolve import resolve
from treerl.engine import noise
from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import window
from treerl.engine.coupling import (
    Births,
    Correlated,
    Coupling,
    Independent,
    Mirrored,
    Orthogonal,
    Rotated,
    siblings,
)
from treerl.engine.grow import grow
from treerl.engine.kernel import FlowSDE
from treerl.engine.losses import EdgeLosses
from treerl.engine.objective import Clipped
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.errors import InputError

COUPLINGS = (Independent(), Mirrored(), Rotated(), Orthogonal(), Correlated(0.5))
FAMILIES = 4000


def families(count: int, size: int, dims: int, coupling: Coupling) -> Tensor:
    """The noise `[count, size, dims]` of `count` families."""
    parents = noise.children(noise.key(7), count)
    born = siblings(parents, np.full(count, size))
    return coupling.normal(born, (dims,)).view(count, size, dims).double()


@pytest.mark.parametrize("coupling", COUPLINGS, ids=str)
@pytest.mark.parametrize("size", [2, 3, 5])
def test_each_child_alone_is_standard_normal(coupling: Coupling, size: int) -> None:
    z = families(FAMILIES, size, 3, coupling)
    error = 1 / math.sqrt(FAMILIES)
    assert float(z.mean(0).abs().max()) < 4.5 * error
    for child in z.unbind(1):
        covariance = child.T @ child / FAMILIES
        assert float((covariance - torch.eye(3)).abs().max()) < 6 * error
        # the fourth moment of a standard normal is 3, its error sqrt(96 / n)
        assert float((child.pow(4).mean(0) - 3).abs().max()) < 4.5 * math.sqrt(96 / FAMILIES)
        # squares of different dimensions do not hang together, as on a sphere they would
        squares = child.square() - 1
        assert abs(float((squares[:, 0] * squares[:, 1]).mean())) < 4.5 * 2 * error


def test_mirrored_siblings_are_pairs_and_the_last_of_an_odd_number_is_alone() -> None:
    z = families(50, 5, 4, Mirrored())
    assert torch.equal(z[:, 0], -z[:, 1]) and torch.equal(z[:, 2], -z[:, 3])
    alone = families(50, 5, 4, Independent())
    assert torch.equal(z[:, 0::2], alone[:, 0::2])


def test_the_noise_of_rotated_siblings_sums_to_zero_and_is_mirrored_for_two() -> None:
    z = families(50, 3, 4, Rotated())
    assert float(z.sum(1).abs().max()) < 1e-5
    gap = families(50, 2, 4, Rotated()) - families(50, 2, 4, Mirrored())
    assert float(gap.abs().max()) < 1e-5
    odd = families(FAMILIES, 3, 3, Rotated())
    assert float(odd[:, :, :2].sum(1).abs().max()) < 1e-5
    # the dimension that is left over is drawn by each sibling alone
    assert abs(float((odd[:, 0, 2] * odd[:, 1, 2]).mean())) < 4.5 / math.sqrt(FAMILIES)


def test_orthogonal_siblings_stand_at_right_angles_and_keep_their_lengths() -> None:
    z = families(50, 4, 6, Orthogonal())
    products = z @ z.mT
    away = products - torch.diag_embed(products.diagonal(dim1=1, dim2=2))
    assert float(away.abs().max()) < 1e-5
    alone = families(50, 4, 6, Independent())
    torch.testing.assert_close(z.norm(dim=2), alone.norm(dim=2), rtol=1e-5, atol=0)


def test_more_siblings_than_dimensions_are_orthogonal_in_blocks() -> None:
    z = families(50, 5, 2, Orthogonal())
    products = z @ z.mT
    assert float(products[:, 0, 1].abs().max()) < 1e-5
    assert float(products[:, 2, 3].abs().max()) < 1e-5
    assert float(products[:, 0, 2].abs().min()) > 1e-5
    line = families(50, 3, 1, Orthogonal())
    assert torch.equal(line, families(50, 3, 1, Independent()))


@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_siblings_of_branchgrpo_correlate_by_one_over_one_plus_s_squared(spread: float) -> None:
    z = families(FAMILIES, 3, 4, Correlated(spread))
    correlation = float((z[:, 0] * z[:, 2]).mean())
    assert abs(correlation - 1 / (1 + spread**2)) < 4.5 * math.sqrt(2 / (4 * FAMILIES))


@pytest.mark.parametrize("coupling", COUPLINGS, ids=str)
def test_the_noise_of_a_child_does_not_depend_on_which_others_are_asked_for(
    coupling: Coupling,
) -> None:
    parents = noise.children(noise.key(3), 6)
    born = siblings(parents, np.array([2, 1, 3, 4, 2, 3]))
    every = coupling.normal(born, (3,))
    uniform = coupling.uniform(born, (3,))
    some = np.array([11, 0, 5, 3])
    part = Births(born.parent[some], born.number[some], born.count[some])
    torch.testing.assert_close(coupling.normal(part, (3,)), every[some], rtol=0, atol=1e-6)
    torch.testing.assert_close(coupling.uniform(part, (3,)), uniform[some], rtol=0, atol=1e-6)
    assert bool(((uniform >= 0) & (uniform < 1)).all())


def test_mirrored_uniform_draws_sum_to_one() -> None:
    born = siblings(noise.children(noise.key(3), 100), np.full(100, 2))
    u = Mirrored().uniform(born, ()).view(100, 2)
    torch.testing.assert_close(u.sum(1), torch.ones(100))
    assert 0.2 < float(u[:, 0].std()) < 0.37


@pytest.mark.parametrize("coupling", COUPLINGS, ids=str)
def test_a_tree_grows_by_the_noise_of_its_coupling_and_replays_exactly(coupling: Coupling) -> None:
    env = Neural(FlowSDE(0.7), schedule(6, 3)).with_tasks([0, 1])
    spec = TreeSpec((1, 3, 2, 1, 1, 1), (False, True, True, True, False, False))
    tree = grow(env, roots(2), spec, rows=4, coupling=coupling)
    nodes = tree.edges
    policy = env.policy(tree.at(tree.parent[nodes]), stochastic=True)
    z = (tree.at(nodes).x - policy.mean) / policy.std[:, None]
    torch.testing.assert_close(
        z.float(), coupling.normal(tree.births(nodes), (6,)), atol=2e-5, rtol=0
    )
    algorithm = Algorithm(objective=Clipped(0.1), coupling=coupling, optimizer_steps=2)
    losses = EdgeLosses(env, tree, torch.ones(len(tree)), algorithm, 4, no_weights)
    for batches in losses.batches(tree.stochastic, np.random.default_rng(0)):
        for batch in batches:
            loss = losses.loss(batch)
            assert float((loss.ratio - 1).abs().max()) == 0
            # what an objective reads as the rollout's noise is the noise that was drawn
            edges = losses._edges(batch.children, None)
            drawn = coupling.normal(tree.births(batch.children), (6,))
            torch.testing.assert_close(edges.noise, drawn)


def test_births_name_the_parent_and_the_place_among_siblings() -> None:
    env = Neural(FlowSDE(0.7), schedule(6, 3)).with_tasks([0, 1])
    tree: Tree = grow(env, roots(2), window(6, 0, 2, 3), rows=8)
    nodes = tree.edges
    born = tree.births(nodes)
    assert np.array_equal(born.keys.view(np.int64), tree.key[nodes].numpy())
    assert born.number.tolist() == [0, 1, 2] * (len(nodes) // 3)
    assert born.count.tolist() == [3] * len(nodes)


def test_the_mean_of_the_other_leaves_is_refused_as_a_baseline_of_mirrored_siblings() -> None:
    with pytest.raises(InputError, match=r"tree\.coupling.*advantage\.baseline.*got mirrored"):
        resolve(None, {}, ["tree.coupling=mirrored", "advantage.baseline=leave-out"])
    resolve(None, {}, ["tree.coupling=orthogonal", "advantage.baseline=leave-out"])
