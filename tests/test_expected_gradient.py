"""The tree gradient, on average over many trees, against the exact policy gradient of the linear world."""

import functools
import math

import pytest
import torch
from oracle import Linear, closed_form, edges, many, replay, schedule
from torch import Tensor

from treerl.engine.advantage import advantages, standardise
from treerl.engine.baseline import Baseline, Depth, LeaveSubtreeOut, ParentGain, Prompt, Siblings
from treerl.engine.branching import Shape, window
from treerl.engine.grow import Roots, grow
from treerl.engine.kernel import CPS, DanceSDE, FlowSDE, Kernel
from treerl.engine.objective import Clipped
from treerl.engine.weighting import SoftmaxSumLogProb, Uniform, Weighting, back_up

TREES = 20_000  # at a time
BINARY = Shape((2, 1, 2, 1, 2, 1, 1, 1), (True,) * 7 + (False,), 0)
TERNARY = window(8, 2, 2, 3)
Z = 4.0


def deviation(
    shape: Shape,
    weighting: Weighting,
    baseline: Baseline,
    factor: tuple[float, ...],
    kernel: Kernel,
    batches: int = 5,
    roots: int = 1,
    power: int = 1,
) -> Tensor:
    """z of (mean tree gradient - factor * exact gradient), for each sampled step; a θ for each tree and step.

    The reward is x or x³.
    """
    noise, sampled = schedule(8, 3), torch.tensor(shape.stochastic)
    found = []
    for _ in range(batches):
        theta = torch.zeros(TREES, 8, dtype=torch.float64, requires_grad=True)
        env = Linear(kernel, noise, theta)
        start = many(TREES * roots)
        tree = grow(env, Roots(start.prompt // roots, start.key, start.start), shape, TREES * roots)
        score = standardise(tree, env.reward(tree.at(tree.leaves))[:, 0] ** power)
        gained = advantages(tree, score, weighting, baseline, normalise=False, clip=math.inf)
        nodes = tree.edges
        loss = Clipped(0.2)(replay(env, tree, nodes), edges(tree, nodes, gained.advantage))
        # the mean over the edges of a step estimates the gradient at that step
        weight = TREES / torch.bincount(tree.step[nodes], minlength=9)[tree.step[nodes]]
        found.append(-torch.autograd.grad((loss.value * weight).sum(), theta)[0][:, sampled])
    every = torch.cat(found)
    oracle = closed_form(kernel, noise.sigma.tolist(), env.mean, env.spread, shape.stochastic)
    # E[x³] = μ³ + 3 μ V, and V does not depend on θ
    slope = 1 if power == 1 else 3 * oracle.mean() ** 2 + 3 * oracle.variance()
    exact = slope * torch.tensor(oracle.gradient(), dtype=torch.float64)[sampled]
    gap = every.mean(0) - torch.tensor(factor, dtype=torch.float64) * exact
    return gap / (every.std(0) / math.sqrt(len(every)))


@pytest.mark.parametrize(
    ("shape", "factor", "roots"),
    [
        (BINARY, (0.5, 0.5, 0.75, 0.75, 0.875, 0.875, 0.875), 1),
        (TERNARY, (2 / 3, 8 / 9), 1),
        (TERNARY, (5 / 6, 17 / 18), 2),
        (Shape((1, 1, 2, 1, 1, 1, 1, 1), (True,) * 4 + (False,) * 4, 0), (0, 0, 0.5, 0.5), 1),
    ],
    ids=["binary", "ternary", "two trees", "before the first split"],
)
def test_q16_expected_tree_gradient_is_one_minus_m_over_n_times_the_exact_gradient(
    fast_noise: None, shape: Shape, factor: tuple[float, ...], roots: int
) -> None:
    z = deviation(shape, Uniform(), Prompt(), factor, FlowSDE(0.7), roots=roots)
    assert float(z.nan_to_num().abs().max()) <= Z


@pytest.mark.parametrize(
    ("kernel", "power"), [(FlowSDE(0.7), 1), (DanceSDE(0.3), 3), (CPS(0.8), 1)], ids=str
)
def test_q17_leaving_the_own_subtree_out_is_unbiased_at_every_depth(
    fast_noise: None, kernel: Kernel, power: int
) -> None:
    z = deviation(BINARY, Uniform(), LeaveSubtreeOut(), (1.0,) * 7, kernel, power=power)
    assert float(z.abs().max()) <= Z


def test_q16_and_q17_tell_the_two_baselines_apart(fast_noise: None) -> None:
    published = (0.5, 0.5, 0.75, 0.75, 0.875, 0.875, 0.875)
    found = deviation(BINARY, Uniform(), LeaveSubtreeOut(), published, DanceSDE(0.3), batches=3)
    assert float(found.abs().max()) >= 20
    found = deviation(BINARY, Uniform(), Prompt(), (1.0,) * 7, DanceSDE(0.3), batches=3)
    assert float(found.abs().max()) >= 20


@pytest.mark.parametrize(
    ("baseline", "factor"),
    [
        (Depth(), (0.5, 0.5, 0.75, 0.75, 0.875, 0.875, 0.875)),
        (Siblings(), (0.5, 0, 0.5, 0, 0.5, 0, 0)),
        (ParentGain(), (0.5, 0, 0.5, 0, 0.5, 0, 0)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_q16_the_other_baselines_have_closed_forms_too(
    fast_noise: None, baseline: Baseline, factor: tuple[float, ...]
) -> None:
    z = deviation(BINARY, Uniform(), baseline, factor, FlowSDE(0.7), batches=2)
    assert float(z.nan_to_num().abs().max()) <= Z


def test_q18_weighting_by_the_density_is_seen_in_the_gradient(fast_noise: None) -> None:
    # the prompt's mean holds a share of the edge itself, so that the factor is not 1
    z = deviation(BINARY, SoftmaxSumLogProb(), Prompt(), (1.0,) * 7, FlowSDE(0.7), batches=3)
    assert float(z.abs().max()) >= 20


def test_q18_weighting_by_the_density_is_seen_in_the_value(fast_noise: None) -> None:
    # it averages under a narrower Gaussian: a mean of x is right by symmetry, a mean of x² is too small
    kernel, noise, count = FlowSDE(0.7), schedule(8, 3), 50_000
    env = Linear(kernel, noise, torch.zeros(8, dtype=torch.float64))
    tree = grow(env, many(count), BINARY, count)
    oracle = closed_form(kernel, noise.sigma.tolist(), env.mean, env.spread, BINARY.stochastic)
    x = env.reward(tree.at(tree.leaves))[:, 0]
    for power, exact in ((1, oracle.mean()), (2, oracle.mean() ** 2 + oracle.variance())):
        even, dense = (
            back_up(tree, x**power, one).value[:count] for one in (Uniform(), SoftmaxSumLogProb())
        )
        assert abs(significance(even - exact)) <= Z
        assert (
            abs(significance(dense - even)) <= Z
            if power == 1
            else significance(dense - even) <= -20
        )


def significance(sample: Tensor) -> float:
    """z of the hypothesis that the mean is 0."""
    return float(sample.mean() / sample.std()) * math.sqrt(len(sample))


@functools.cache
def trained(seed: int) -> tuple[float, float, float, float]:
    """(cosine of θ's way with the exact gradient, rise, closed-form E[r], sampled E[r]) after 50 updates."""
    kernel, noise, shape = FlowSDE(0.7), schedule(6, 3), window(6, 1, 3, 2)
    sampled = torch.tensor(shape.stochastic)
    theta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    env = Linear(kernel, noise, theta, mean=0.8)
    optimizer = torch.optim.SGD([theta], lr=0.5)
    for update in range(50):
        start = many(64)
        tree = grow(
            env, Roots(start.prompt, start.key + 64 * (50 * seed + update), start.start), shape, 64
        )
        score = standardise(tree, env.reward(tree.at(tree.leaves))[:, 0])
        gained = advantages(tree, score, Uniform(), LeaveSubtreeOut()).advantage
        loss = Clipped(0.2)(replay(env, tree, tree.edges), edges(tree, tree.edges, gained)).value
        weight = 1 / torch.bincount(tree.step[tree.edges], minlength=7)[tree.step[tree.edges]]
        optimizer.zero_grad()
        (loss * weight).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    oracle = closed_form(kernel, noise.sigma.tolist(), env.mean, env.spread, shape.stochastic)
    moved, exact = (
        theta.detach()[sampled],
        torch.tensor(oracle.gradient(), dtype=torch.float64)[sampled],
    )
    expected = oracle.mean(theta.tolist())
    tree = grow(env, many(5000), Shape((1,) * 6, shape.stochastic, 1), 5000)
    cosine = float(moved @ exact / moved.norm() / exact.norm())
    assert not theta.detach()[~sampled].any()
    return cosine, expected - oracle.mean(), expected, float(tree.at(tree.leaves).x.mean())


@pytest.mark.parametrize("seed", range(10))
def test_q24_fifty_updates_climb_along_the_exact_gradient(fast_noise: None, seed: int) -> None:
    cosine, rise, expected, sampled = trained(seed)
    assert cosine >= 0.9 and rise > 0.2
    assert sampled == pytest.approx(expected, rel=0.05)
