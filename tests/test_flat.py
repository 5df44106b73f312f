"""A flat group is a forest that never splits: the engine against GRPO written out in plain lines."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from oracle import KERNELS, Linear, Neural, edges, planted, published, replay, schedule
from torch import Tensor

from treerl.engine import noise
from treerl.engine.advantage import advantages, standardise
from treerl.engine.baseline import Prompt
from treerl.engine.branching import Fixed, Shape
from treerl.engine.grow import Roots, grow
from treerl.engine.kernel import ODE, Kernel
from treerl.engine.minibatch import minibatches
from treerl.engine.objective import Clipped
from treerl.engine.tree import Tree
from treerl.engine.weighting import Uniform

GROUP, PROMPTS, STEPS, DIMS = 5, 3, 6, 2
SAMPLED = (False, True, True, True, False, False)
CLIP = 0.004


@dataclass(frozen=True)
class Trained:
    """What a training step reports."""

    loss: Tensor
    gradient: Tensor
    advantage: Tensor  # [P, G]
    ratio: Tensor  # of every trained edge, sorted
    clipped: float


def flat_grpo(kernel: Kernel, old: Tensor, new: Tensor) -> Trained:
    """MixGRPO: G chains a prompt, SDE inside the window, the group's z-score on every step of its chain."""
    sigma = schedule(STEPS, 3).sigma.tolist()
    theta = new.clone().requires_grad_()
    terms, ratios, scores, cut = [], [], [], 0
    for prompt in range(PROMPTS):
        chains = []
        for key in np.split(noise.children(noise.key(0, prompt), GROUP), GROUP):
            x = noise.normal(noise.mix(key, 2**32), (DIMS,), torch.float64)[0]
            chain = []
            for k in range(STEPS):
                key = noise.mix(key, 0)
                mean, std = move(kernel if SAMPLED[k] else ODE(), sigma[k], sigma[k + 1], x, old[k])
                after = mean + std * noise.normal(key, (DIMS,), torch.float64)[0]
                chain.append((x, after, mean, std))
                x = after
            chains.append(chain)
        score = torch.stack([chain[-1][1].sum() for chain in chains])
        advantage = (score - score.mean()) / score.std(correction=0)
        scores.append(advantage)
        for chain, a in zip(chains, advantage, strict=True):
            for k, (x, after, mean, std) in enumerate(chain):
                if SAMPLED[k]:
                    now = move(kernel, sigma[k], sigma[k + 1], x, theta[k])[0]
                    log_ratio = ((after - mean) ** 2 - (after - now) ** 2).mean() / (2 * std**2)
                    ratio = log_ratio.exp()
                    terms.append(-torch.minimum(ratio * a, ratio.clamp(1 - CLIP, 1 + CLIP) * a))
                    ratios.append(ratio.detach())
                    cut += bool((a > 0 and ratio > 1 + CLIP) or (a < 0 and ratio < 1 - CLIP))
    loss = torch.stack(terms).mean()
    gradient = torch.autograd.grad(loss, theta)[0]
    return Trained(
        loss.detach(),
        gradient,
        torch.stack(scores),
        torch.stack(ratios).sort().values,
        cut / len(terms),
    )


def move(
    kernel: Kernel, now: float, after: float, x: Tensor, theta: Tensor
) -> tuple[Tensor, float]:
    """One step of the linear world by the papers' formula, with its exact velocity (mean 0.4, spread 0.5)."""
    pull = (now - (1 - now) * 0.25) / ((1 - now) ** 2 * 0.25 + now**2)
    at_zero, std = published(kernel, now, after, 0.0, 0.0)
    per_x, per_v = (
        published(kernel, now, after, 1.0, 0.0)[0],
        published(kernel, now, after, 0.0, 1.0)[0],
    )
    assert at_zero == 0
    return per_x * x + per_v * (pull * (x - (1 - now) * 0.4) - 0.4 + theta), std


def as_a_forest(kernel: Kernel, old: Tensor, new: Tensor, rows: int = 4) -> Trained:
    """The same by the engine: n = G trees of k = 1."""
    theta = new.clone().requires_grad_()
    env = Linear(kernel, schedule(STEPS, 3), old, shape=(DIMS,))
    shape = Fixed(branch=1, depth=3, start=1).law(STEPS, 0)[0][1]
    assert shape.stochastic == SAMPLED
    tree = grow(env, planted(PROMPTS, GROUP), shape, rows)
    found = advantages(
        tree, standardise(tree, env.reward(tree.at(tree.leaves))[:, 0]), Uniform(), Prompt()
    )
    env.theta = theta
    total, ratios, clipped = torch.zeros((), dtype=torch.float64), [], []
    for batch in minibatches(tree, 1, rows, noise.generator(1), reduce="edges")[0]:
        policy = env.policy(tree.at(batch.parents), stochastic=True).take(batch.owner)
        loss = Clipped(CLIP)(policy, edges(tree, batch.children, found.advantage))
        total = total + (loss.value * batch.weight).sum()
        ratios.append(loss.ratio)
        clipped.append(loss.clipped)
    gradient = torch.autograd.grad(total, theta)[0]
    group = found.advantage[tree.leaves].view(PROMPTS, GROUP)
    for step in (
        2,
        3,
        4,
        5,
        6,
    ):  # one child each: the value, and so the advantage, is the leaf's all along the chain
        assert torch.equal(found.advantage[tree.level(step)].view(PROMPTS, GROUP), group)
    cut = float(torch.cat(clipped).double().mean())
    return Trained(total.detach(), gradient, group, torch.cat(ratios).sort().values, cut)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("moved", [0.0, 0.05])
def test_q10_trees_that_never_split_are_flat_grpo(kernel: Kernel, moved: float) -> None:
    # two independent orders of the same float64 sums: equal to 1e-12, not to the last bit
    old = torch.linspace(-0.2, 0.3, STEPS, dtype=torch.float64)
    new = old + moved * torch.tensor([1, -1, 1, 2, 1, 1], dtype=torch.float64)
    flat, tree = flat_grpo(kernel, old, new), as_a_forest(kernel, old, new)
    assert torch.allclose(tree.loss, flat.loss, rtol=1e-12, atol=1e-13)
    assert torch.allclose(tree.gradient, flat.gradient, rtol=1e-11, atol=1e-13)
    assert torch.allclose(tree.advantage, flat.advantage, rtol=1e-11, atol=1e-12)
    assert torch.allclose(tree.ratio, flat.ratio, rtol=1e-12, atol=0)
    assert tree.clipped == flat.clipped
    assert (flat.clipped > 0) == (moved > 0) and float(flat.gradient.abs().max()) > 1e-3


def test_q10_a_forest_holds_the_same_chains_bit_by_bit() -> None:
    env = Neural(KERNELS[0], schedule(STEPS, 3), storage=torch.float64, dtype=torch.float64)
    shape = Fixed(branch=1, depth=3, start=1).law(STEPS, 0)[0][1]
    whole = grow(env, planted(PROMPTS, GROUP), shape, 8)
    planted_roots = planted(PROMPTS, GROUP)
    for row in range(PROMPTS * GROUP):
        one = slice(row, row + 1)
        chain = grow(env, Roots(*(part[one] for part in vars(planted_roots).values())), shape, 8)
        mine = [int(whole.level(step).start) + row for step in range(1, 5)]
        assert torch.equal(whole.at(torch.tensor(mine)).x, chain.at(torch.arange(1, 5)).x)


GOLDEN_RATIO = 0x9E3779B97F4A7C15


def split_at_the_start(group: int) -> tuple[Roots, Roots]:
    """One root that splits `group` ways, and `group` roots that share its start and whose first step draws the same."""
    key, start = noise.key(4), noise.key(5)
    # child 0 of key + j·φ is child j of key: mix adds (number + 1)·φ before it hashes
    flat = key + np.arange(group, dtype=np.uint64) * np.uint64(GOLDEN_RATIO)
    one = Roots(torch.zeros(1, dtype=torch.int64), key, start)
    return one, Roots(torch.zeros(group, dtype=torch.int64), flat, np.repeat(start, group))


@pytest.mark.parametrize("reward", ["sum", "first"])
def test_q11_one_split_at_the_first_step_is_flat_grpo_with_shared_noise(reward: str) -> None:
    group, sampled = 8, (True, True, True, False, False, False)
    env = Neural(KERNELS[0], schedule(STEPS, 3), storage=torch.float64, dtype=torch.float64)
    one, many = split_at_the_start(group)
    split = grow(env, one, Shape((group, 1, 1, 1, 1, 1), sampled, 0), 16)
    flat = grow(env, many, Shape((1,) * STEPS, sampled, 0), 16)
    assert split.sizes == (1, *(group,) * STEPS) and flat.sizes == (group,) * (STEPS + 1)
    assert torch.equal(split.log_prob[split.edges], flat.log_prob[flat.edges])
    results = []
    weights = list(env.network.parameters())
    stored = [weight.detach().clone() for weight in weights]
    for tree in (split, flat):
        assert torch.equal(tree.at(tree.leaves).x, flat.at(flat.leaves).x)
        score = tree.at(tree.leaves).x.sum(1) if reward == "sum" else tree.at(tree.leaves).x[:, 0]
        found = advantages(tree, standardise(tree, score), Uniform(), Prompt()).advantage
        with torch.no_grad():
            for weight, old in zip(weights, stored, strict=True):
                weight.copy_(
                    old + 0.02 * torch.sin(torch.arange(old.numel(), dtype=old.dtype)).view_as(old)
                )
        loss = Clipped(CLIP)(replay(env, tree, tree.edges), edges(tree, tree.edges, found))
        gradient = torch.autograd.grad(loss.value.mean(), weights)
        results.append((found[tree.edges], loss, gradient))
    (advantage, loss, gradient), (other_advantage, other_loss, other_gradient) = results
    # stored edges are equal to the bit; the prompt's mean (0 but for rounding) is summed in another order
    assert torch.allclose(advantage, other_advantage, rtol=0, atol=1e-15)
    assert torch.allclose(loss.value, other_loss.value, rtol=0, atol=1e-14)
    assert torch.equal(loss.ratio, other_loss.ratio) and torch.equal(
        loss.clipped, other_loss.clipped
    )
    assert bool(loss.clipped.any()) and not bool(loss.clipped.all())
    for a, b in zip(gradient, other_gradient, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_q11_the_root_of_a_split_at_the_first_step_is_asked_once() -> None:
    one, _ = split_at_the_start(4)
    env = Neural(KERNELS[0], schedule(STEPS, 3))
    tree: Tree = grow(env, one, Shape((4, 1, 1, 1, 1, 1), (True,) * 5 + (False,), 0), 1)
    assert env.asked == 1 + 5 * 4 and len(tree.edges) == 4 * 5
