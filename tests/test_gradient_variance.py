"""The tree gradient's exact mean and variance in the linear world, against the engine's trees."""

import itertools
import math

import pytest
import torch
from forests import centred
from gradient_cases import (
    BASELINES,
    BINARY,
    COUPLINGS,
    DENSITIES,
    SMALL,
    TERNARY,
    TREES,
    Z,
    deviation,
    predicted,
    worst,
)
from gradient_moments import Moments
from gradient_samples import World, ascent, readings
from oracle import schedule
from plain import leaf_totals

from treerl import registry
from treerl.engine.advantage import advantages
from treerl.engine.baseline import (
    Depth,
    LeaveSubtreeOut,
    Prompt,
    Siblings,
)
from treerl.engine.branching import window
from treerl.engine.coupling import (
    Coupling,
    Independent,
    Mirrored,
    Orthogonal,
)
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weighting import (
    SoftmaxValue,
    Uniform,
)


def test_every_announced_part_is_in_the_study() -> None:
    for kind, chosen in (
        ("baselines", BASELINES),
        ("couplings", COUPLINGS),
        ("weightings", (Uniform(), *DENSITIES, SoftmaxValue())),
    ):
        announced = {registry.load(kind, name) for name in registry.announced(kind)}
        assert announced == {type(part) for part in chosen}


@pytest.mark.parametrize("world", [BINARY, TERNARY], ids=["binary", "ternary"])
@pytest.mark.parametrize("coupling", COUPLINGS, ids=lambda c: type(c).__name__)
def test_the_gradient_of_equal_weights_has_the_mean_and_the_variance_of_a_quadratic_form(
    world: World, coupling: Coupling
) -> None:
    tree = world.grow(TREES, coupling)
    for baseline in BASELINES:
        assert worst(world, Uniform(), baseline, coupling, tree) <= Z, baseline


@pytest.mark.parametrize(
    "world",
    [
        World(BINARY.schedule, window(5, 0, 3, 1), trees=4),
        World(BINARY.schedule, window(5, 1, 2, 1), trees=4, shared_noise=True),
        World(BINARY.schedule, TreeSpec((1, 2, 1, 2, 1), (True,) * 4 + (False,)), trees=2),
    ],
    ids=["chains", "chains of one start", "trees that split at times"],
)
def test_groups_of_chains_and_of_trees_are_quadratic_forms_too(world: World) -> None:
    tree = world.grow(TREES, Independent())  # by its own keys: equal ones start from equal noise
    for baseline in (Prompt(), Depth(), LeaveSubtreeOut()):
        assert worst(world, Uniform(), baseline, Independent(), tree) <= Z, baseline


def test_a_mirrored_binary_tree_leaves_only_the_noise_of_the_step_itself() -> None:
    # whatever kernel, window and tail: 2 / families along the gradient, 1 / families across it
    for spec in (window(5, 0, 3, 2), window(8, 2, 4, 2), TreeSpec((2,) * 3, (True,) * 3)):
        world = World(schedule(len(spec.children), 3), spec)
        for step, baseline in itertools.product(world.sampled, BASELINES[:5]):
            exact = predicted(world, baseline, Mirrored(), step)
            families = spec.widths[step]
            assert exact.factor == pytest.approx(1)
            assert exact.along == pytest.approx(2 / families)
            assert exact.across == pytest.approx(1 / families)
            assert exact.origins == pytest.approx((0, 1 / families, 0))


@pytest.mark.parametrize("coupling", COUPLINGS, ids=lambda c: type(c).__name__)
def test_leaving_the_own_subtree_out_only_rescales_the_steps(coupling: Coupling) -> None:
    for step in BINARY.sampled:
        share = 1 / BINARY.spec.widths[step + 1]
        prompt = predicted(BINARY, Prompt(), coupling, step)
        left_out = predicted(BINARY, LeaveSubtreeOut(), coupling, step)
        assert left_out.factor == pytest.approx(prompt.factor / (1 - share))
        assert left_out.along == pytest.approx(prompt.along / (1 - share) ** 2)
        assert left_out.across == pytest.approx(prompt.across / (1 - share) ** 2)


def test_the_credit_of_edges_is_that_of_their_leaves_paths() -> None:
    """Against the prompt's mean backing up changes nothing: the tree helps by its samples alone."""
    tree = BINARY.grow(200, Independent())
    scores = centred(tree, leaf_totals(tree))
    credit = advantages(tree, scores, Uniform(), Prompt(), normalise=False, clip=math.inf)
    edges = ascent(BINARY, tree, credit.advantage)
    paths = torch.zeros_like(edges)
    for leaf in range(8):
        alone = torch.zeros_like(credit.advantage)
        node = tree.leaves[leaf::8]
        score = credit.advantage[node]
        while int(tree.parent[node[0]]) != Tree.NO_PARENT:
            families = BINARY.spec.widths[int(tree.step[node[0]])]
            alone[node] = score * families / 8
            node = tree.parent[node]
        paths += ascent(BINARY, tree, alone)
    torch.testing.assert_close(paths, edges, rtol=1e-9, atol=1e-12)


def wrong(exact: Moments, **change: float) -> tuple[float, float, float]:
    """A prediction with a number of it changed."""
    numbers: dict[str, float] = {
        "factor": exact.factor,
        "along": exact.along,
        "across": exact.across,
    }
    numbers |= change
    return numbers["factor"], numbers["along"], numbers["across"]


def test_a_wrong_formula_is_seen() -> None:
    tree = BINARY.grow(16_000, Independent())
    last = BINARY.sampled[-1]
    found = readings(BINARY, tree, Uniform(), Prompt())[last]
    exact = predicted(BINARY, Prompt(), Independent(), last)
    assert deviation(found, wrong(exact)) <= Z
    # the variance as if noise before the step did not count, or siblings were mirrored
    without = exact.across - exact.origins[0]
    assert deviation(found, wrong(exact, across=without)) >= 20
    mirrored = predicted(BINARY, Prompt(), Mirrored(), last)
    assert deviation(found, (mirrored.factor, mirrored.along, mirrored.across)) >= 20
    assert deviation(found, wrong(exact, factor=1.0)) >= 10
    first = readings(BINARY, tree, Uniform(), Prompt())[0]
    assert abs(first.factor.z(1.0)) >= 20


def test_more_siblings_than_dimensions_are_orthogonal_in_blocks() -> None:
    world = World(SMALL.schedule, TreeSpec((6, 1, 1), (True, True, False), (1, 1, 2)))
    tree = world.grow(TREES, Orthogonal())
    for baseline in (Prompt(), LeaveSubtreeOut()):
        assert worst(world, Uniform(), baseline, Orthogonal(), tree) <= Z


def test_orthogonal_siblings_are_not_gaussian_together() -> None:
    tree = TERNARY.grow(16_000, Orthogonal())
    found = readings(TERNARY, tree, Uniform(), Siblings())[2]
    gaussian = predicted(TERNARY, Siblings(), Independent(), 2)
    assert deviation(found, (gaussian.factor, gaussian.along, gaussian.across)) >= 20
