"""Objectives: the clipped surrogate, its gradient, its KL term, and extreme numbers."""

import math
from collections.abc import Callable

import pytest
import torch
from forests import standardised
from oracle import KERNELS, Linear, Neural, closed_form, schedule
from plain import edges, leaf_totals, log_density, plain_edges, replay, roots
from torch import Tensor

from treerl.engine.advantage import advantages
from treerl.engine.baseline import LeaveSubtreeOut, Prompt
from treerl.engine.branching import window
from treerl.engine.grow import grow
from treerl.engine.kernel import FlowSDE, Kernel
from treerl.engine.objective import Clipped
from treerl.engine.policy import Gaussian
from treerl.engine.tree import Tree
from treerl.engine.weighting import Uniform
from treerl.errors import NumericsError

WINDOW = window(6, 1, 3, 2)


def rollout(
    latent_dtype: torch.dtype, dtype: torch.dtype, kernel: Kernel
) -> tuple[Neural, Tree, Tensor]:
    """A small network's forest, its advantages, and the network moved off its old policy."""
    env = Neural(kernel, schedule(6, 3), (3,), latent_dtype, width=5, dtype=dtype)
    tree = grow(env, roots(4), WINDOW, 16)
    score = standardised(tree, leaf_totals(tree))
    advantage = advantages(tree, score, Uniform(), Prompt()).advantage
    with torch.no_grad():
        for weight in env.network.parameters():
            weight.add_(
                torch.sin(3.0 * torch.arange(weight.numel())).view_as(weight).to(dtype), alpha=0.02
            )
    return env, tree, advantage


def surrogate(
    env: Neural, tree: Tree, advantage: Tensor, objective: Clipped, reference: Gaussian | None
) -> Tensor:
    stored = edges(tree, tree.edges, advantage, reference)
    return objective(replay(env, tree, tree.edges), stored).value.sum()


def flat_gradient(loss: Tensor, env: Neural) -> Tensor:
    """d loss / d weights, all of them in one row."""
    gradient = torch.autograd.grad(loss, list(env.network.parameters()))
    return torch.cat([part.flatten() for part in gradient])


def differences(env: Neural, loss: Callable[[], Tensor], step: float) -> Tensor:
    """Central differences of `loss()` over every weight of the network."""
    slopes = []
    with torch.no_grad():
        for weight in env.network.parameters():
            flat = weight.view(-1)
            for place in range(len(flat)):
                middle = float(flat[place])
                flat[place] = middle + step
                above = float(loss())
                flat[place] = middle - step
                slopes.append((above - float(loss())) / (2 * step))
                flat[place] = middle
    return torch.tensor(slopes, dtype=torch.float64)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_autograd_is_the_central_difference_of_the_surrogate(kernel: Kernel, kl: float) -> None:
    env, tree, advantage = rollout(torch.float64, torch.float64, kernel)
    reference = None
    if kl:
        with torch.no_grad():
            still = replay(env, tree, tree.edges)
            reference = Gaussian(still.mean + 0.1 * torch.sin(still.mean), still.std)
    objective = Clipped(clip_range=0.003, kl=kl)
    stored = edges(tree, tree.edges, advantage)
    moved = objective(replay(env, tree, tree.edges), stored)
    margin = torch.minimum((moved.ratio - 1.003).abs(), (moved.ratio - 0.997).abs())
    assert float(margin.min()) > 1e-5 and 0.05 < float(moved.clipped.double().mean()) < 0.95
    loss = surrogate(env, tree, advantage, objective, reference)
    exact = flat_gradient(loss, env)
    numeric = differences(env, lambda: surrogate(env, tree, advantage, objective, reference), 1e-6)
    assert float((exact - numeric).abs().max()) <= 1e-7 * float(exact.abs().max())


@pytest.mark.parametrize("latent_dtype", [torch.bfloat16, torch.float16])
def test_with_short_stored_latents_autograd_is_still_the_difference(
    latent_dtype: torch.dtype,
) -> None:
    env, tree, advantage = rollout(latent_dtype, torch.float32, KERNELS[0])
    objective = Clipped(clip_range=0.2)
    loss = surrogate(env, tree, advantage, objective, None)
    exact = flat_gradient(loss, env)
    numeric = differences(env, lambda: surrogate(env, tree, advantage, objective, None), 1e-2)
    assert float((exact - numeric).abs().max()) <= 2e-2 * float(exact.abs().max())


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_at_ratio_one_the_gradient_is_the_sum_of_advantage_times_score(kernel: Kernel) -> None:
    levels = schedule(6, 3)
    dims = 2
    theta = torch.linspace(-0.3, 0.4, 6, dtype=torch.float64, requires_grad=True)
    env = Linear(kernel, levels, theta, shape=(dims,))
    tree = grow(env, roots(4), WINDOW, 8)
    score = standardised(tree, leaf_totals(tree))
    advantage = advantages(tree, score, Uniform(), LeaveSubtreeOut()).advantage
    loss = Clipped()(replay(env, tree, tree.edges), edges(tree, tree.edges, advantage))
    assert torch.equal(loss.ratio, torch.ones_like(loss.ratio)) and not bool(loss.clipped.any())
    steps = closed_form(kernel, levels.sigma.tolist(), env.mean, env.spread, WINDOW.stochastic)
    expected = torch.zeros(6, dtype=torch.float64)
    for node in tree.edges.tolist():
        k = int(tree.step[node]) - 1
        parent = tree.at(tree.parent[node : node + 1]).x
        child = tree.at(torch.tensor([node])).x
        mean = steps.a[k] * parent + steps.b[k] + steps.c[k] * float(theta[k].detach())
        # log-probs are means over the dimensions, so the score is too
        expected[k] -= advantage[node] * steps.c[k] * (child - mean).mean() / steps.s[k] ** 2
    gradient = torch.autograd.grad(loss.value.sum(), theta)[0]
    assert torch.allclose(gradient, expected, rtol=1e-12, atol=1e-12)
    assert float(gradient.abs().min()) == 0 and int((gradient.abs() > 1e-2).sum()) == 3


@pytest.mark.parametrize(
    ("advantage", "log_ratio", "value", "slope"),
    [
        (2.0, 0.5, -2 * 1.2, 0.0),  # better already: nothing more to gain
        (
            2.0,
            -0.5,
            -2 * math.exp(-0.5),
            -2 * math.exp(-0.5),
        ),  # the wrong way: the gradient brings it back
        (-2.0, 0.5, 2 * math.exp(0.5), 2 * math.exp(0.5)),
        (-2.0, -0.5, 2 * 0.8, 0.0),
        (2.0, 0.1, -2 * math.exp(0.1), -2 * math.exp(0.1)),  # inside the clip range
        (-2.0, 0.1, 2 * math.exp(0.1), 2 * math.exp(0.1)),
        (0.0, 0.5, 0.0, 0.0),
        (0.0, -0.5, 0.0, 0.0),
    ],
)
def test_the_clip_cuts_what_pushes_outwards_and_nothing_else(
    advantage: float, log_ratio: float, value: float, slope: float
) -> None:
    mean = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    std = torch.ones(1, dtype=torch.float64)
    x = torch.tensor([[1.0]], dtype=torch.float64)
    old = Gaussian(mean.detach(), std).log_prob(x) - log_ratio
    loss = Clipped(0.2)(Gaussian(mean, std), plain_edges(x, old, torch.tensor([advantage])))
    assert float(loss.value.detach()) == pytest.approx(value, abs=1e-12)
    assert float(loss.ratio) == pytest.approx(math.exp(log_ratio), rel=1e-12)
    assert bool(loss.clipped) == (slope == 0 and advantage != 0)
    gradient = torch.autograd.grad(loss.value.sum(), mean)[0]  # d log p / d mean = 1 here
    assert float(gradient) == pytest.approx(slope, abs=1e-12)
    assert slope != 0 or float(gradient) == 0


def test_the_ratio_is_the_dims_th_root_of_the_density_ratio() -> None:
    generator = torch.Generator().manual_seed(22)
    x, old, new = (torch.randn(5, 4, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    std = torch.tensor([0.3, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    stored = Gaussian(old, std).log_prob(x)
    ratio = Clipped()(Gaussian(new, std), plain_edges(x, stored, torch.ones(5))).ratio
    densities = [log_density(x, mean, std).flatten(1).sum(1) for mean in (new, old)]
    assert torch.allclose(12 * ratio.log(), densities[0] - densities[1], rtol=1e-12, atol=1e-10)


def test_of_a_tree_dims_times_log_prob_is_the_log_density() -> None:
    env = Neural(KERNELS[0], schedule(6), (4, 3), torch.float64, dtype=torch.float64)
    tree = grow(env, roots(1), WINDOW, 8)
    assert tree.dims == 12
    with torch.no_grad():
        policy = replay(env, tree, tree.edges)
    density = log_density(tree.at(tree.edges).x, policy.mean, policy.std).flatten(1).sum(1)
    assert torch.allclose(tree.dims * tree.log_prob[tree.edges], density, rtol=0, atol=1e-10)


def test_the_kl_is_the_gaussian_closed_form_and_zero_when_equal() -> None:
    generator = torch.Generator().manual_seed(23)
    first, other = (
        torch.randn(4, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    std = torch.tensor([0.1, 0.7, 1.0, 4.0], dtype=torch.float64)
    normals = [torch.distributions.Normal(mean, std.view(-1, 1, 1)) for mean in (first, other)]
    expected = torch.distributions.kl_divergence(*normals).flatten(1).mean(1)
    assert torch.allclose(
        Gaussian(first, std).kl(Gaussian(other, std)), expected, rtol=1e-10, atol=0
    )
    assert torch.equal(
        Gaussian(first, std).kl(Gaussian(first, std)), torch.zeros(4, dtype=torch.float64)
    )


def test_the_kl_enters_the_loss_once_with_its_factor() -> None:
    env, tree, advantage = rollout(torch.float64, torch.float64, KERNELS[0])
    with torch.no_grad():
        policy = replay(env, tree, tree.edges)
        reference = Gaussian(policy.mean + 0.05, policy.std)
        plain = Clipped(0.01)(policy, edges(tree, tree.edges, advantage))
        stored = edges(tree, tree.edges, advantage, reference)
        pulled = Clipped(0.01, kl=0.25)(policy, stored)
    expected = 0.25 * 0.05**2 / (2 * policy.std**2)
    assert torch.allclose(pulled.value - plain.value, expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(pulled.ratio, plain.ratio) and torch.equal(pulled.clipped, plain.clipped)
    assert Clipped(0.01, kl=0.25).weight_set == "start" and Clipped(0.01).weight_set is None


@pytest.mark.parametrize("dims", [1, 4096])
@pytest.mark.parametrize("advantage", [-1e6, -5.0, 0.0, 5.0, 1e6])
@pytest.mark.parametrize("log_ratio", [-80.0, -1e-4, 0.0, 1e-4, 80.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_edges_give_a_finite_loss_and_gradient(
    dims: int, advantage: float, log_ratio: float, dtype: torch.dtype
) -> None:
    mean = torch.zeros(2, dims, dtype=dtype, requires_grad=True)
    policy = Gaussian(mean, torch.full((2,), math.exp(-5), dtype=dtype))
    x = torch.full((2, dims), 0.01, dtype=dtype)
    old = (policy.log_prob(x) - log_ratio).detach().double()
    stored = plain_edges(x, old, torch.full((2,), advantage, dtype=torch.float64))
    loss = Clipped()(policy, stored)
    gradient = torch.autograd.grad(loss.value.sum(), mean)[0]
    assert not bool(loss.value.isnan().any()) and not bool(gradient.isnan().any())
    # float32 ends at 3.4e38, and e^80 · 1e6 is beyond: the trainer refuses by the gradient's norm
    beyond = dtype == torch.float32 and advantage == -1e6 and log_ratio == 80
    assert bool(loss.value.isfinite().all()) != beyond


def test_extreme_scores_come_out_clipped() -> None:
    env = Linear(FlowSDE(0.7), schedule(6, 3), torch.zeros(6, dtype=torch.float64))
    tree = grow(env, roots(1, trees=8), WINDOW, 8)
    single = torch.eye(64, dtype=torch.float64)[5]
    for score, largest in ((torch.linspace(-1e6, 1e6, 64), 1.8), (single * -1e150, 5)):
        credit = advantages(tree, standardised(tree, score), Uniform(), Prompt())
        assert bool(credit.advantage.isfinite().all())
        assert float(credit.advantage.abs().max()) == pytest.approx(largest, abs=0.1)
        assert float(credit.advantage.abs().max()) <= 5
    with pytest.raises(NumericsError, match="scores are too large to have a finite spread"):
        standardised(tree, single * -1e300)
