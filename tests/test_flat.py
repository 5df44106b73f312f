"""A flat group is a forest that never splits: the engine against GRPO in plain lines."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from forests import standardised
from oracle import KERNELS, Linear, Neural, published, schedule
from plain import edges, leaf_totals, replay, roots
from torch import Tensor

from treerl.engine import noise
from treerl.engine.advantage import advantages
from treerl.engine.baseline import Prompt
from treerl.engine.branching import Fixed
from treerl.engine.grow import grow
from treerl.engine.kernel import ODE, Kernel
from treerl.engine.minibatch import minibatches
from treerl.engine.objective import Clipped
from treerl.engine.roots import Roots
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weighting import Uniform

GROUP = 5
PROMPTS = 3
STEPS = 6
DIMS = 2
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
    """MixGRPO: G chains a prompt, SDE in the window, the group's z-score on all of a chain."""
    sigma = schedule(STEPS, 3).sigma.tolist()
    theta = new.clone().requires_grad_()
    terms = []
    ratios = []
    scores = []
    cut = 0
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
    """One step of the linear world by the papers' formula, with its exact velocity.

    Its data have mean 0.4 and spread 0.5.
    """
    pull = (now - (1 - now) * 0.25) / ((1 - now) ** 2 * 0.25 + now**2)
    at_zero, std = published(kernel, now, after, 0.0, 0.0)
    per_x = published(kernel, now, after, 1.0, 0.0)[0]
    per_v = published(kernel, now, after, 0.0, 1.0)[0]
    assert at_zero == 0
    return per_x * x + per_v * (pull * (x - (1 - now) * 0.4) - 0.4 + theta), std


def as_a_forest(kernel: Kernel, old: Tensor, new: Tensor, rows: int = 4) -> Trained:
    """The same by the engine: n = G trees of k = 1."""
    theta = new.clone().requires_grad_()
    env = Linear(kernel, schedule(STEPS, 3), old, shape=(DIMS,))
    spec = Fixed(branching_factor=1, depth=3, start=1).distribution(STEPS, 0)[0][1]
    assert spec.stochastic == SAMPLED
    tree = grow(env, roots(PROMPTS, GROUP), spec, rows)
    credit = advantages(tree, standardised(tree, leaf_totals(tree)), Uniform(), Prompt())
    env.theta = theta
    total = torch.zeros((), dtype=torch.float64)
    ratios = []
    clipped = []
    generator = noise.generator(1)
    for batch in minibatches(tree, tree.stochastic, 1, rows, generator, "edges")[0]:
        policy = env.policy(tree.at(batch.parents), stochastic=True).take(batch.owner)
        loss = Clipped(CLIP)(policy, edges(tree, batch.children, credit.advantage))
        total = total + (loss.value * batch.weight).sum()
        ratios.append(loss.ratio)
        clipped.append(loss.clipped)
    gradient = torch.autograd.grad(total, theta)[0]
    group = credit.advantage[tree.leaves].view(PROMPTS, GROUP)
    for step in (2, 3, 4, 5, 6):
        # one child each: the value, and so the advantage, is the leaf's all along the chain
        assert torch.equal(credit.advantage[tree.level(step)].view(PROMPTS, GROUP), group)
    cut = float(torch.cat(clipped).double().mean())
    return Trained(total.detach(), gradient, group, torch.cat(ratios).sort().values, cut)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("moved", [0.0, 0.05])
def test_trees_that_never_split_are_flat_grpo(kernel: Kernel, moved: float) -> None:
    # two independent orders of the same float64 sums: equal to 1e-12, not to the last bit
    old = torch.linspace(-0.2, 0.3, STEPS, dtype=torch.float64)
    new = old + moved * torch.tensor([1, -1, 1, 2, 1, 1], dtype=torch.float64)
    flat = flat_grpo(kernel, old, new)
    tree = as_a_forest(kernel, old, new)
    assert torch.allclose(tree.loss, flat.loss, rtol=1e-12, atol=1e-13)
    assert torch.allclose(tree.gradient, flat.gradient, rtol=1e-11, atol=1e-13)
    assert torch.allclose(tree.advantage, flat.advantage, rtol=1e-11, atol=1e-12)
    assert torch.allclose(tree.ratio, flat.ratio, rtol=1e-12, atol=0)
    assert tree.clipped == flat.clipped
    assert (flat.clipped > 0) == (moved > 0) and float(flat.gradient.abs().max()) > 1e-3


def test_a_forest_holds_the_same_chains_bit_by_bit() -> None:
    env = Neural(KERNELS[0], schedule(STEPS, 3), latent_dtype=torch.float64, dtype=torch.float64)
    spec = Fixed(branching_factor=1, depth=3, start=1).distribution(STEPS, 0)[0][1]
    every = roots(PROMPTS, GROUP)
    whole = grow(env, every, spec, 8)
    for row in range(PROMPTS * GROUP):
        here = slice(row, row + 1)
        alone = Roots(every.task[here], every.key[here], every.start[here])
        chain = grow(env, alone, spec, 8)
        mine = [int(whole.level(step).start) + row for step in range(1, 5)]
        assert torch.equal(whole.at(torch.tensor(mine)).x, chain.at(torch.arange(1, 5)).x)


GOLDEN_RATIO = 0x9E3779B97F4A7C15


def split_at_the_start(group: int) -> tuple[Roots, Roots]:
    """One root that splits `group` ways, and `group` roots that do not.

    They share its start, and their first step draws what its children draw.
    """
    key = noise.key(4)
    start = noise.key(5)
    # child 0 of key + j·φ is child j of key: mix adds (number + 1)·φ before it hashes
    flat = key + np.arange(group, dtype=np.uint64) * np.uint64(GOLDEN_RATIO)
    single = Roots(torch.zeros(1, dtype=torch.int64), key, start)
    return single, Roots(torch.zeros(group, dtype=torch.int64), flat, np.repeat(start, group))


@pytest.mark.parametrize("reward", ["sum", "first"])
def test_one_split_at_the_first_step_is_flat_grpo_with_shared_noise(reward: str) -> None:
    group = 8
    sampled = (True, True, True, False, False, False)
    env = Neural(KERNELS[0], schedule(STEPS, 3), latent_dtype=torch.float64, dtype=torch.float64)
    single, many = split_at_the_start(group)
    split = grow(env, single, TreeSpec((group, 1, 1, 1, 1, 1), sampled), 16)
    flat = grow(env, many, TreeSpec((1,) * STEPS, sampled), 16)
    assert split.sizes == (1, *(group,) * STEPS) and flat.sizes == (group,) * (STEPS + 1)
    assert torch.equal(split.log_prob[split.edges], flat.log_prob[flat.edges])
    results = []
    weights = list(env.network.parameters())
    stored = [weight.detach().clone() for weight in weights]
    for tree in (split, flat):
        assert torch.equal(tree.at(tree.leaves).x, flat.at(flat.leaves).x)
        score = tree.at(tree.leaves).x.sum(1) if reward == "sum" else tree.at(tree.leaves).x[:, 0]
        advantage = advantages(tree, standardised(tree, score), Uniform(), Prompt()).advantage
        with torch.no_grad():
            for weight, old in zip(weights, stored, strict=True):
                move_by = torch.sin(torch.arange(old.numel(), dtype=old.dtype)).view_as(old)
                weight.copy_(old + 0.02 * move_by)
        loss = Clipped(CLIP)(replay(env, tree, tree.edges), edges(tree, tree.edges, advantage))
        gradient = torch.autograd.grad(loss.value.mean(), weights)
        results.append((advantage[tree.edges], loss, gradient))
    (advantage, loss, gradient), (other_advantage, other_loss, other_gradient) = results
    # stored edges are equal to the bit; the prompt's mean (0 but for rounding) is summed otherwise
    assert torch.allclose(advantage, other_advantage, rtol=0, atol=1e-15)
    assert torch.allclose(loss.value, other_loss.value, rtol=0, atol=1e-14)
    assert torch.equal(loss.ratio, other_loss.ratio)
    assert torch.equal(loss.clipped, other_loss.clipped)
    assert bool(loss.clipped.any()) and not bool(loss.clipped.all())
    for a, b in zip(gradient, other_gradient, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_the_root_of_a_split_at_the_first_step_takes_one_forward() -> None:
    single, _ = split_at_the_start(4)
    env = Neural(KERNELS[0], schedule(STEPS, 3))
    tree: Tree = grow(env, single, TreeSpec((4, 1, 1, 1, 1, 1), (True,) * 5 + (False,)), 1)
    assert env.forwards == 1 + 5 * 4 and len(tree.edges) == 4 * 5
