"""Replay: the policy at a stored edge's parent gives the density that was stored."""

import pytest
import torch
from oracle import KERNELS, Linear, Neural, closed_form, schedule
from plain import edges, log_density, path, replay, roots
from torch import Tensor

from treerl.engine import noise
from treerl.engine.branching import window
from treerl.engine.env import Env
from treerl.engine.grow import grow
from treerl.engine.kernel import Kernel
from treerl.engine.minibatch import minibatches
from treerl.engine.objective import Clipped
from treerl.engine.policy import Gaussian
from treerl.engine.tree import State, Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.errors import NumericsError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
WINDOW = window(6, 1, 3, 3)


def ratios(env: Env, tree: Tree, rows: int, seed: int) -> Tensor:
    """The ratio of every edge in the trainer's layout: padded chunks of parents in random order."""
    ratio = []
    for batch in minibatches(tree, tree.stochastic, 1, rows, noise.generator(seed))[0]:
        policy = env.policy(tree.at(batch.parents), stochastic=True).take(batch.owner)
        ratio.append(Clipped()(policy, edges(tree, batch.children, torch.ones(len(tree)))).ratio)
    return torch.cat(ratio)


@pytest.mark.parametrize("latent_dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize(("seed", "start"), [(0, 0), (1, 1), (2, 2)])
def test_the_ratio_is_exactly_one_at_the_same_row_count(
    latent_dtype: torch.dtype, kernel: Kernel, seed: int, start: int
) -> None:
    dtype = torch.promote_types(latent_dtype, torch.float32)
    env = Neural(kernel, schedule(6, 3), (4, 3), latent_dtype, dtype=dtype, seed=seed)
    tree = grow(env, roots(3, trees=2, seed=seed), window(6, start, 3, 3), rows=16)
    ratio = ratios(env, tree, 16, seed)
    assert tree.x.dtype == latent_dtype and ratio.dtype == dtype
    assert len(ratio) == 2 * 3 * 39
    assert torch.equal(ratio, torch.ones_like(ratio))


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 24])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_at_any_other_row_count_the_ratio_is_one_to_1e_6(rows: int, kernel: Kernel) -> None:
    env = Neural(kernel, schedule(6, 3), (4, 3), torch.float32)
    tree = grow(env, roots(3, trees=2), WINDOW, rows=16)
    assert float((ratios(env, tree, rows, 0) - 1).abs().max()) <= 1e-6


def test_with_gradients_on_the_ratio_is_still_exactly_one() -> None:
    env = Neural(KERNELS[0], schedule(6, 3), (4, 3), torch.bfloat16)
    tree = grow(env, roots(2), WINDOW, rows=8)
    assert all(weight.requires_grad for weight in env.network.parameters())
    assert not tree.x.requires_grad and not tree.log_prob.requires_grad
    assert torch.equal(ratios(env, tree, 8, 1), torch.ones(39 * 2))


@pytest.mark.parametrize("latent_dtype", [torch.bfloat16, torch.float16])
def test_what_is_stored_is_what_is_fed_back(latent_dtype: torch.dtype) -> None:
    env = Neural(KERNELS[0], schedule(6, 3), (4, 3), latent_dtype)
    tree = grow(env, roots(2), WINDOW, rows=64)
    leaf = tree.at(tree.leaves)
    level = tree.level(4)
    state = tree.at(torch.arange(level.start, level.stop))
    for _ in range(2):
        state = env.transition(state, env.policy(state, stochastic=False).mode.to(latent_dtype))
    assert torch.equal(state.x, leaf.x) and torch.equal(state.step, leaf.step)
    assert bool(env.terminal(leaf).all())


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_the_log_prob_of_every_edge_and_path_is_the_closed_form(kernel: Kernel) -> None:
    noise_levels = schedule(6, 3)
    dims = 3
    theta = torch.linspace(-0.5, 0.5, 6, dtype=torch.float64)
    env = Linear(kernel, noise_levels, theta, shape=(dims,))
    tree = grow(env, roots(2), WINDOW, rows=8)
    steps = closed_form(
        kernel, noise_levels.sigma.tolist(), env.mean, env.spread, WINDOW.stochastic
    )
    expected: dict[int, float] = {}
    for node in tree.edges.tolist():
        k = int(tree.step[node]) - 1
        parent = tree.at(tree.parent[node : node + 1]).x
        child = tree.at(torch.tensor([node])).x
        mean = steps.a[k] * parent + steps.b[k] + steps.c[k] * theta[k]
        expected[node] = float(log_density(child, mean, steps.s[k]).sum()) / dims
        assert float(tree.log_prob[node]) == pytest.approx(expected[node], abs=1e-11)
    for leaf in tree.leaves.tolist():
        mine = [node for node in path(tree, leaf) if node in expected]
        assert len(mine) == 3
        density = sum(expected[node] for node in mine)
        assert float(tree.log_prob[mine].sum()) == pytest.approx(density, abs=1e-10)


def test_deterministic_edges_carry_no_log_prob_at_all() -> None:
    tree = grow(Neural(KERNELS[0], schedule(6)), roots(2), WINDOW, rows=8)
    assert torch.equal(tree.log_prob.isnan(), ~tree.stochastic)
    assert set(tree.step[tree.edges].tolist()) == {2, 3, 4}
    assert not tree.stochastic[: tree.sizes[0]].any()


def test_the_latent_of_a_node_outside_the_window_was_not_kept() -> None:
    tree = grow(Neural(KERNELS[0], schedule(6)), roots(2), window(6, 2, 2, 2), rows=8)
    assert set(tree.step[tree.slot == Tree.DROPPED].tolist()) == {0, 1, 5}
    with pytest.raises(ValueError, match="was not kept"):
        tree.at(torch.arange(2))


def test_the_mean_ratio_under_a_moved_policy_is_one_in_one_dimension() -> None:
    # E_old[π_new / π_old] = 1: the scored density is the one that sampled
    theta = torch.zeros(6, dtype=torch.float64)
    env = Linear(KERNELS[0], schedule(6, 3), theta)
    tree = grow(
        env,
        roots(400),
        TreeSpec((1, 4, 1, 1, 1, 1), (False, True, True, False, False, False)),
        rows=4096,
    )
    env.theta = theta + 0.6
    nodes = tree.edges
    ratio = Clipped()(replay(env, tree, nodes), edges(tree, nodes, torch.ones(len(tree)))).ratio
    assert float(ratio.std()) > 0.05
    assert abs(float(ratio.mean()) - 1) <= 4 * float(ratio.std()) / len(ratio) ** 0.5


@pytest.mark.parametrize("step", [0, 1, 3, 5])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_latent_that_is_not_finite_is_named_by_its_step(step: int, bad: float) -> None:
    class Broken(Neural):
        def policy(self, state: State, stochastic: bool) -> Gaussian:
            policy = super().policy(state, stochastic)
            if int(state.step[0]) == step:
                policy.mean[-1, 0, 0] = bad
            return policy

    with (
        torch.no_grad(),
        pytest.raises(NumericsError, match=rf"rollout: step {step}, child \d+ of its level"),
    ):
        grow(Broken(KERNELS[0], schedule(6), (4, 3)), roots(3), window(6, 1, 2, 2), rows=3)


def test_an_interrupt_may_stop_a_rollout_between_two_forwards() -> None:
    env = Neural(KERNELS[0], schedule(6))
    calls: list[int] = []

    def check_interrupt() -> None:
        calls.append(env.forwards)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(env, roots(2), WINDOW, 2, check_interrupt)
    assert calls == [0, 2, 4, 6] and env.forwards == 6
