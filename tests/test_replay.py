"""Replay: the policy that is asked again about a stored edge gives the density that was stored."""

import pytest
import torch
from oracle import (
    KERNELS,
    Linear,
    Neural,
    closed_form,
    edges,
    log_density,
    planted,
    replay,
    schedule,
)
from torch import Tensor

from treerl.engine import noise
from treerl.engine.branching import Shape, window
from treerl.engine.env import Env
from treerl.engine.grow import grow
from treerl.engine.kernel import Gaussian, Kernel
from treerl.engine.minibatch import minibatches
from treerl.engine.objective import Clipped
from treerl.engine.tree import State, Tree
from treerl.errors import NumericsError

STORAGES = (torch.float32, torch.bfloat16, torch.float16)
WINDOW = window(6, 1, 3, 3)


def ratios(env: Env, tree: Tree, rows: int, seed: int) -> Tensor:
    """The ratio of every edge, asked in the trainer's layout: padded chunks of parents in random order."""
    found = []
    for batch in minibatches(tree, 1, rows, noise.generator(seed))[0]:
        policy = env.policy(tree.at(batch.parents), stochastic=True).take(batch.owner)
        found.append(Clipped()(policy, edges(tree, batch.children, torch.ones(len(tree)))).ratio)
    return torch.cat(found)


@pytest.mark.parametrize("storage", [*STORAGES, torch.float64])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize(("seed", "start"), [(0, 0), (1, 1), (2, 2)])
def test_q4_the_ratio_is_exactly_one_at_the_same_row_count(
    storage: torch.dtype, kernel: Kernel, seed: int, start: int
) -> None:
    dtype = torch.promote_types(storage, torch.float32)
    env = Neural(kernel, schedule(6, 3), (4, 3), storage, dtype=dtype, seed=seed)
    tree = grow(env, planted(3, roots=2, seed=seed), window(6, start, 3, 3), rows=16)
    found = ratios(env, tree, 16, seed)
    assert tree.x.dtype == storage and found.dtype == dtype
    assert len(found) == 2 * 3 * 39
    assert torch.equal(found, torch.ones_like(found))


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 24])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_n2_at_any_other_row_count_the_ratio_is_one_to_1e_6(rows: int, kernel: Kernel) -> None:
    env = Neural(kernel, schedule(6, 3), (4, 3), torch.float32)
    tree = grow(env, planted(3, roots=2), WINDOW, rows=16)
    assert float((ratios(env, tree, rows, 0) - 1).abs().max()) <= 1e-6


def test_q4_with_gradients_on_the_ratio_is_still_exactly_one() -> None:
    env = Neural(KERNELS[0], schedule(6, 3), (4, 3), torch.bfloat16)
    tree = grow(env, planted(2), WINDOW, rows=8)
    assert all(weight.requires_grad for weight in env.network.parameters())
    assert not tree.x.requires_grad and not tree.log_prob.requires_grad
    assert torch.equal(ratios(env, tree, 8, 1), torch.ones(39 * 2))


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float16])
def test_what_is_stored_is_what_is_fed_back(storage: torch.dtype) -> None:
    env = Neural(KERNELS[0], schedule(6, 3), (4, 3), storage)
    tree = grow(env, planted(2), WINDOW, rows=64)
    leaf, state = (
        tree.at(tree.leaves),
        tree.at(torch.arange(tree.level(4).start, tree.level(4).stop)),
    )
    for _ in range(2):
        state = env.transition(state, env.policy(state, stochastic=False).mean.to(storage))
    assert (
        torch.equal(state.x, leaf.x)
        and bool(env.terminal(leaf).all())
        and torch.equal(state.step, leaf.step)
    )


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_q3_the_log_prob_of_every_edge_and_path_is_the_closed_form(kernel: Kernel) -> None:
    noise_levels, dims = schedule(6, 3), 3
    theta = torch.linspace(-0.5, 0.5, 6, dtype=torch.float64)
    env = Linear(kernel, noise_levels, theta, shape=(dims,))
    tree = grow(env, planted(2), WINDOW, rows=8)
    steps = closed_form(
        kernel, noise_levels.sigma.tolist(), env.mean, env.spread, WINDOW.stochastic
    )
    expected: dict[int, float] = {}
    for node in tree.edges.tolist():
        k = int(tree.step[node]) - 1
        parent, child = tree.at(tree.parent[node : node + 1]).x, tree.at(torch.tensor([node])).x
        mean = steps.a[k] * parent + steps.b[k] + steps.c[k] * theta[k]
        expected[node] = float(log_density(child, mean, steps.s[k]).sum()) / dims
        assert float(tree.log_prob[node]) == pytest.approx(expected[node], abs=1e-11)
    for leaf in tree.leaves.tolist():
        mine = [node for node in tree.path(leaf) if node in expected]
        assert len(mine) == 3
        assert torch.equal(tree.path_log_prob(leaf), tree.log_prob[mine].sum())
        assert float(tree.path_log_prob(leaf)) == pytest.approx(
            sum(expected[node] for node in mine), abs=1e-10
        )


def test_q3_deterministic_edges_carry_no_log_prob_at_all() -> None:
    tree = grow(Neural(KERNELS[0], schedule(6)), planted(2), WINDOW, rows=8)
    assert torch.equal(tree.log_prob.isnan(), ~tree.stochastic)
    assert set(tree.step[tree.edges].tolist()) == {2, 3, 4}
    assert not tree.stochastic[: tree.sizes[0]].any()


def test_the_latent_of_a_node_outside_the_window_was_not_kept() -> None:
    tree = grow(Neural(KERNELS[0], schedule(6)), planted(2), window(6, 2, 2, 2), rows=8)
    assert set(tree.step[tree.slot == Tree.DROPPED].tolist()) == {0, 1, 5}
    with pytest.raises(ValueError, match="was not kept"):
        tree.at(torch.arange(2))


def test_the_mean_ratio_under_a_moved_policy_is_one_in_one_dimension() -> None:
    # E_old[π_new / π_old] = 1: the scored density is the one that sampled
    theta = torch.zeros(6, dtype=torch.float64)
    env = Linear(KERNELS[0], schedule(6, 3), theta)
    tree = grow(
        env,
        planted(400),
        Shape((1, 4, 1, 1, 1, 1), (False, True, True, False, False, False), 1),
        rows=4096,
    )
    env.theta = theta + 0.6
    nodes = tree.edges
    found = Clipped()(replay(env, tree, nodes), edges(tree, nodes, torch.ones(len(tree)))).ratio
    assert float(found.std()) > 0.05
    assert abs(float(found.mean()) - 1) <= 4 * float(found.std()) / len(found) ** 0.5


@pytest.mark.parametrize("step", [0, 1, 3, 5])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_n8_a_latent_that_is_not_finite_is_named_by_its_step(step: int, bad: float) -> None:
    class Broken(Neural):
        def policy(self, state: State, stochastic: bool) -> Gaussian:
            found = super().policy(state, stochastic)
            if int(state.step[0]) == step:
                found.mean[-1, 0, 0] = bad
            return found

    with (
        torch.no_grad(),
        pytest.raises(NumericsError, match=rf"rollout: step {step}, child \d+ of its level"),
    ):
        grow(Broken(KERNELS[0], schedule(6), (4, 3)), planted(3), window(6, 1, 2, 2), rows=3)


def test_polling_may_stop_a_rollout_between_two_forwards() -> None:
    env = Neural(KERNELS[0], schedule(6))
    calls: list[int] = []

    def poll() -> None:
        calls.append(env.asked)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(env, planted(2), WINDOW, 2, poll)
    assert calls == [0, 2, 4, 6] and env.asked == 6
