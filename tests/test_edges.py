"""What an objective may read of an edge: step, sigma, task, noise, and the Gaussian that took it.

With them GRPO-Guard's normalised ratio (arXiv 2510.22319) and Flow-DPPO's mask by the KL of the
step (arXiv 2606.11025) are objectives of ten lines.
"""

from dataclasses import dataclass, field, replace

import pytest
import torch
from oracle import KERNELS, Neural, schedule
from plain import edges, replay, roots
from small_runs import SPEC, TASKS, Watched, algorithm, trainer
from torch import Tensor

from treerl.engine.branching import window
from treerl.engine.grow import grow
from treerl.engine.kernel import Kernel
from treerl.engine.objective import Clipped, EdgeObjective, Edges, Loss
from treerl.engine.policy import Gaussian, Policy
from treerl.engine.tree import Tree


def moved_world(kernel: Kernel, dtype: torch.dtype) -> tuple[Neural, Tree, Gaussian]:
    """A forest, the Gaussians that took its edges, and the network moved off them."""
    compute = torch.promote_types(dtype, torch.float32)
    env = Neural(kernel, schedule(6, 3), (4, 3), dtype, dtype=compute)
    tree = grow(env, roots(2, trees=2), window(6, 1, 3, 3), rows=16)
    with torch.no_grad():
        rollout = replay(env, tree, tree.edges)
        for weight in env.network.parameters():
            weight.add_(torch.sin(3.0 * torch.arange(weight.numel())).view_as(weight), alpha=0.05)
    return env, tree, rollout


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize(
    ("dtype", "rounding"),
    [(torch.float64, 1e-15), (torch.float32, 3e-7), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)],
)
def test_the_rollouts_gaussian_is_made_again_from_noise_to_the_rounding_of_what_was_stored(
    kernel: Kernel, dtype: torch.dtype, rounding: float
) -> None:
    env, tree, rollout = moved_world(kernel, dtype)
    with torch.no_grad():
        policy = replay(env, tree, tree.edges)
    stored = edges(tree, tree.edges, torch.zeros(len(tree)))
    again = stored.rollout(policy)
    assert torch.equal(again.std, rollout.std)
    error = (again.mean - rollout.mean).abs() / (1 + stored.x.abs().to(again.mean.dtype))
    assert float(error.max()) <= rounding
    assert float((policy.mean - rollout.mean).abs().max()) > 0.01  # which is not the policy's own


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_noise_of_an_edge_takes_the_rollouts_mean_to_the_stored_latent(
    dtype: torch.dtype,
) -> None:
    _, tree, rollout = moved_world(KERNELS[0], dtype)
    stored = edges(tree, tree.edges, torch.zeros(len(tree)))
    std = rollout.std[:, None, None]
    drawn = (rollout.mean + std * stored.noise.to(rollout.mean)).to(dtype)
    assert torch.equal(drawn, stored.x)


def test_the_trainer_hands_every_edge_its_step_sigma_task_noise_and_advantage() -> None:
    train, env = trainer(algorithm(), per_task=True)
    step = train.iterate(TASKS)
    objective = train.algorithm.objective
    assert isinstance(objective, Watched)
    by_latent = {float(step.tree.at(node[None]).x): int(node) for node in step.tree.edges}
    count = 0
    for met in objective.met:
        nodes = torch.tensor([by_latent[float(x)] for x in met.x])
        count += len(nodes)
        assert torch.equal(met.step, step.tree.step[nodes] - 1)
        assert torch.equal(met.sigma, env.schedule.sigma[met.step])
        assert torch.equal(met.task, step.tree.task[nodes])
        assert torch.equal(met.advantage, step.advantages.advantage[nodes])
        assert torch.equal(met.log_prob, step.tree.log_prob[nodes])
        again = edges(step.tree, nodes, step.advantages.advantage)
        assert torch.equal(met.noise, again.noise) and met.reference is None
    assert count == 3 * SPEC.edges


@dataclass(frozen=True)
class RatioNorm(EdgeObjective):
    """GRPO-Guard: log r' = s (log r + |Δμ|² / 2s²), a mean over dimensions, clipped as ever."""

    clip_range: float = 2e-3
    log_ratios: list[Tensor] = field(init=False, compare=False, default_factory=list)

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        assert isinstance(policy, Gaussian)
        plain = policy.log_prob(edges.x) - edges.log_prob
        log_ratio = policy.std * (plain + policy.kl(edges.rollout(policy)))
        self.log_ratios.append(log_ratio.detach())
        ratio = log_ratio.exp()
        bounded = ratio.clamp(1 - self.clip_range, 1 + self.clip_range)
        value = torch.maximum(-edges.advantage * ratio, -edges.advantage * bounded)
        return Loss(value, ratio.detach(), ratio.detach() != bounded.detach())


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_the_normalised_ratio_is_noise_times_the_move_of_the_mean_at_every_step(
    kernel: Kernel,
) -> None:
    env, tree, rollout = moved_world(kernel, torch.float64)
    with torch.no_grad():
        policy = replay(env, tree, tree.edges)
        stored = edges(tree, tree.edges, torch.ones(len(tree)))
        objective = RatioNorm()
        objective(policy, stored)
    move = (policy.mean - rollout.mean).flatten(1)
    expected = (stored.noise.flatten(1) * move).mean(1)
    assert torch.allclose(objective.log_ratios[0], expected, rtol=0, atol=1e-12)
    # centred, where the plain log-ratio has the mean -|Δμ|² / 2s², that is minus the KL, and is
    # the larger the smaller the step's std
    plain = policy.log_prob(stored.x) - stored.log_prob
    off_centre = expected / policy.std - policy.kl(rollout)
    assert torch.allclose(plain, off_centre, rtol=0, atol=1e-12)


def test_training_with_the_normalised_ratio_climbs() -> None:
    train, _ = trainer(algorithm(objective=RatioNorm()), lr=4.0)
    rewards = [train.iterate(TASKS * 4).metrics["reward"] for _ in range(40)]
    assert sum(rewards[-8:]) / 8 > sum(rewards[:8]) / 8 + 0.3
    assert all(bool(torch.isfinite(part).all()) for part in train.algorithm.objective.log_ratios)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class KLMask(EdgeObjective):
    """Flow-DPPO: an edge that left its rollout by more than `bound`, outwards, is not trained."""

    bound: float = 1e-3

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        assert isinstance(policy, Gaussian)
        ratio = (policy.log_prob(edges.x) - edges.log_prob).exp()
        far = policy.kl(edges.rollout(policy)) > self.bound
        outwards = (ratio - 1) * edges.advantage > 0
        masked = (far & outwards).detach()
        value = torch.where(masked, 0.0, -edges.advantage * ratio)
        return Loss(value, ratio.detach(), masked)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_mask_by_the_exact_kl_cuts_the_edges_that_left_outwards_and_no_other(
    kernel: Kernel,
) -> None:
    env, tree, rollout = moved_world(kernel, torch.float64)
    advantage = torch.cos(torch.arange(len(tree), dtype=torch.float64))
    stored = edges(tree, tree.edges, advantage)
    policy = replay(env, tree, tree.edges)
    mean = policy.mean.detach().requires_grad_()
    moved = replace(policy, mean=mean)
    kl = (mean.detach() - rollout.mean).flatten(1).square().mean(1) / (2 * rollout.std**2)
    bound = 1.001 * float(kl.median())
    loss = KLMask(bound)(moved, stored)
    gradient = torch.autograd.grad(loss.value.sum(), mean)[0].flatten(1)
    outwards = (loss.ratio - 1) * stored.advantage > 0
    expected = (kl > bound) & outwards
    assert torch.equal(loss.clipped, expected) and 0 < int(expected.sum()) < len(expected) / 2
    assert not gradient[expected].any() and bool(gradient[~expected].any(1).all())
    free = Clipped(0.9)(moved, stored)
    whole = torch.autograd.grad(free.value.sum(), mean)[0].flatten(1)
    assert torch.allclose(gradient[~expected], whole[~expected], rtol=1e-12, atol=1e-15)
