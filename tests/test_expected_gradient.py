"""The tree gradient, on average over many trees, against the linear world's exact gradient."""

import functools
import math

import pytest
import torch
from forests import centred, on_leaves, standardised
from oracle import Linear, closed_form, schedule
from plain import edges, leaf_totals, many, replay
from torch import Tensor

from treerl.engine.advantage import advantages
from treerl.engine.baseline import Baseline, Depth, LeaveSubtreeOut, ParentGain, Prompt, Siblings
from treerl.engine.branching import window
from treerl.engine.coupling import Correlated, Coupling, Mirrored
from treerl.engine.grow import grow
from treerl.engine.kernel import CPS, DanceSDE, FlowSDE, Kernel
from treerl.engine.objective import Clipped
from treerl.engine.roots import Roots
from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weighting import SoftmaxSumLogProb, Uniform, Weighting, back_up

TREES = 20_000  # at a time
BINARY = TreeSpec((2, 1, 2, 1, 2, 1, 1, 1), (True,) * 7 + (False,))
TERNARY = window(8, 2, 2, 3)
Z = 4.0


def deviation(
    spec: TreeSpec,
    weighting: Weighting,
    baseline: Baseline,
    factor: tuple[float, ...],
    kernel: Kernel,
    batches: int = 5,
    trees: int = 1,
    power: int = 1,
    coupling: Coupling | None = None,
) -> Tensor:
    """z of (mean tree gradient - factor * exact gradient), for each sampled step.

    Each tree and step has a θ of its own; the reward is x or x³.
    """
    noise = schedule(8, 3)
    sampled = torch.tensor(spec.stochastic)
    gradients = []
    for batch in range(batches):
        theta = torch.zeros(TREES, 8, dtype=torch.float64, requires_grad=True)
        env = Linear(kernel, noise, theta)
        start = many(TREES * trees, batch * TREES * trees)
        roots = Roots(start.task // trees, start.key, start.start)
        tree = grow(env, roots, spec, TREES * trees, coupling=coupling)
        score = centred(tree, leaf_totals(tree) ** power)
        credit = advantages(tree, score, weighting, baseline, normalise=False, clip=math.inf)
        advantage = credit.advantage
        nodes = tree.edges
        loss = Clipped(0.2)(replay(env, tree, nodes), edges(tree, nodes, advantage))
        # the mean over the edges of a step estimates the gradient at that step
        weight = TREES / torch.bincount(tree.step[nodes], minlength=9)[tree.step[nodes]]
        gradients.append(-torch.autograd.grad((loss.value * weight).sum(), theta)[0][:, sampled])
    every = torch.cat(gradients)
    oracle = closed_form(kernel, noise.sigma.tolist(), env.mean, env.spread, spec.stochastic)
    # E[x³] = μ³ + 3 μ V, and V does not depend on θ
    slope = 1 if power == 1 else 3 * oracle.mean() ** 2 + 3 * oracle.variance()
    exact = slope * torch.tensor(oracle.gradient(), dtype=torch.float64)[sampled]
    gap = every.mean(0) - torch.tensor(factor, dtype=torch.float64) * exact
    return gap / (every.std(0) / math.sqrt(len(every)))


@pytest.mark.parametrize(
    ("spec", "factor", "trees"),
    [
        (BINARY, (0.5, 0.5, 0.75, 0.75, 0.875, 0.875, 0.875), 1),
        (TERNARY, (2 / 3, 8 / 9), 1),
        (TERNARY, (5 / 6, 17 / 18), 2),
        (TreeSpec((1, 1, 2, 1, 1, 1, 1, 1), (True,) * 4 + (False,) * 4), (0, 0, 0.5, 0.5), 1),
    ],
    ids=["binary", "ternary", "two trees", "before the first split"],
)
def test_expected_tree_gradient_is_one_minus_m_over_n_times_the_exact_gradient(
    spec: TreeSpec, factor: tuple[float, ...], trees: int
) -> None:
    z = deviation(spec, Uniform(), Prompt(), factor, FlowSDE(0.7), trees=trees)
    assert float(z.nan_to_num().abs().max()) <= Z


@pytest.mark.parametrize(
    ("kernel", "power"), [(FlowSDE(0.7), 1), (DanceSDE(0.3), 3), (CPS(0.8), 1)], ids=str
)
def test_leaving_the_own_subtree_out_is_unbiased_at_every_depth(kernel: Kernel, power: int) -> None:
    z = deviation(BINARY, Uniform(), LeaveSubtreeOut(), (1.0,) * 7, kernel, power=power)
    assert float(z.abs().max()) <= Z


# 1 - (m/n) (1 + (k - 1) c) for correlation c between siblings; unsplit edges have no sibling
COUPLED = [
    (Mirrored(), Prompt(), (1.0, 0.5, 1.0, 0.75, 1.0, 0.875, 0.875)),
    (Mirrored(), Siblings(), (1.0, 0, 1.0, 0, 1.0, 0, 0)),
    (Mirrored(), LeaveSubtreeOut(), (2.0, 1.0, 4 / 3, 1.0, 8 / 7, 1.0, 1.0)),
    (Correlated(1.0), Prompt(), (0.25, 0.5, 0.625, 0.75, 0.8125, 0.875, 0.875)),
]


@pytest.mark.parametrize(
    ("coupling", "baseline", "factor"),
    COUPLED,
    ids=[f"{type(c).__name__}-{type(b).__name__}" for c, b, _ in COUPLED],
)
def test_mirrored_siblings_learn_the_exact_gradient_against_the_prompts_mean(
    coupling: Coupling, baseline: Baseline, factor: tuple[float, ...]
) -> None:
    z = deviation(BINARY, Uniform(), baseline, factor, FlowSDE(0.7), 2, coupling=coupling)
    assert float(z.nan_to_num().abs().max()) <= Z


def test_the_test_tells_the_two_baselines_apart() -> None:
    published = (0.5, 0.5, 0.75, 0.75, 0.875, 0.875, 0.875)
    z = deviation(BINARY, Uniform(), LeaveSubtreeOut(), published, DanceSDE(0.3), batches=3)
    assert float(z.abs().max()) >= 20
    z = deviation(BINARY, Uniform(), Prompt(), (1.0,) * 7, DanceSDE(0.3), batches=3)
    assert float(z.abs().max()) >= 20


@pytest.mark.parametrize(
    ("baseline", "factor"),
    [
        (Depth(), (0.5, 0.5, 0.75, 0.75, 0.875, 0.875, 0.875)),
        (Siblings(), (0.5, 0, 0.5, 0, 0.5, 0, 0)),
        (ParentGain(), (0.5, 0, 0.5, 0, 0.5, 0, 0)),
    ],
    ids=lambda baseline: type(baseline).__name__,
)
def test_the_other_baselines_have_closed_forms_too(
    baseline: Baseline, factor: tuple[float, ...]
) -> None:
    z = deviation(BINARY, Uniform(), baseline, factor, FlowSDE(0.7), batches=2)
    assert float(z.nan_to_num().abs().max()) <= Z


def test_weighting_by_the_density_is_seen_in_the_gradient() -> None:
    # the prompt's mean holds a share of the edge itself, so that the factor is not 1
    z = deviation(BINARY, SoftmaxSumLogProb(), Prompt(), (1.0,) * 7, FlowSDE(0.7), batches=3)
    assert float(z.abs().max()) >= 20


def test_weighting_by_the_density_is_seen_in_the_value() -> None:
    # it averages under a narrower Gaussian: a mean of x is right by symmetry, one of x² too small
    kernel = FlowSDE(0.7)
    noise = schedule(8, 3)
    count = 50_000
    env = Linear(kernel, noise, torch.zeros(8, dtype=torch.float64))
    tree = grow(env, many(count), BINARY, count)
    oracle = closed_form(kernel, noise.sigma.tolist(), env.mean, env.spread, BINARY.stochastic)
    x = leaf_totals(tree)
    for power, exact in ((1, oracle.mean()), (2, oracle.mean() ** 2 + oracle.variance())):
        leaf = on_leaves(tree, x**power)
        even = back_up(tree, leaf, Uniform()).values[:count]
        dense = back_up(tree, leaf, SoftmaxSumLogProb()).values[:count]
        assert abs(significance(even - exact)) <= Z
        if power == 1:
            assert abs(significance(dense - even)) <= Z
        else:
            assert significance(dense - even) <= -20


def significance(sample: Tensor) -> float:
    """z of the hypothesis that the mean is 0."""
    return float(sample.mean() / sample.std()) * math.sqrt(len(sample))


@functools.cache
def trained(seed: int) -> tuple[float, float, float, float]:
    """(cosine of θ's way with the exact gradient, rise, closed-form E[r], sampled E[r]) at 50."""
    kernel = FlowSDE(0.7)
    noise = schedule(6, 3)
    spec = window(6, 1, 3, 2)
    sampled = torch.tensor(spec.stochastic)
    theta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    env = Linear(kernel, noise, theta, mean=0.8)
    optimizer = torch.optim.SGD([theta], lr=0.5)
    for update in range(50):
        tree = grow(env, many(64, 64 * (50 * seed + update)), spec, 64)
        score = standardised(tree, leaf_totals(tree))
        advantage = advantages(tree, score, Uniform(), LeaveSubtreeOut()).advantage
        stored = edges(tree, tree.edges, advantage)
        loss = Clipped(0.2)(replay(env, tree, tree.edges), stored).value
        weight = 1 / torch.bincount(tree.step[tree.edges], minlength=7)[tree.step[tree.edges]]
        optimizer.zero_grad()
        (loss * weight).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    oracle = closed_form(kernel, noise.sigma.tolist(), env.mean, env.spread, spec.stochastic)
    moved = theta.detach()[sampled]
    exact = torch.tensor(oracle.gradient(), dtype=torch.float64)[sampled]
    expected = oracle.mean(theta.tolist())
    tree = grow(env, many(5000), TreeSpec((1,) * 6, spec.stochastic), 5000)
    cosine = float(moved @ exact / moved.norm() / exact.norm())
    assert not theta.detach()[~sampled].any()
    return cosine, expected - oracle.mean(), expected, float(tree.at(tree.leaves).x.mean())


@pytest.mark.parametrize("seed", range(10))
def test_fifty_updates_climb_along_the_exact_gradient(seed: int) -> None:
    cosine, rise, expected, sampled = trained(seed)
    assert cosine >= 0.9 and rise > 0.2
    assert sampled == pytest.approx(expected, rel=0.05)
