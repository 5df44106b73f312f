"""Scores at inner nodes: x̂₀ previews, the gain of each step, and trees that are dropped for one."""

import math
from dataclasses import replace

import pytest
import torch
from oracle import Linear, schedule
from plain import SUM, Absolute, Always, Counted, PlainRewards, path, total
from torch import Tensor

from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import Baseline, LeaveSubtreeOut, ParentGain, Prompt
from treerl.engine.branching import window
from treerl.engine.kernel import FlowSDE
from treerl.engine.normaliser import Centred
from treerl.engine.objective import Clipped
from treerl.engine.policy import Gaussian
from treerl.engine.scorer import Scorer
from treerl.engine.task import Samples
from treerl.engine.trainer import Trainer
from treerl.engine.tree import State, Tree
from treerl.engine.tree_spec import TreeSpec
from treerl.errors import InputError, RewardError

SPEC = TreeSpec((1, 3, 1, 2, 1, 1), (False, True, True, True, False, False))
GAIN = Algorithm(
    branching=Always(SPEC),
    previews=True,
    trees_per_prompt=2,
    normaliser=Absolute(),
    baseline=ParentGain(),
    normalise=False,
    advantage_clip=1e9,
    objective=Clipped(0.2),
    optimizer_steps=1,
)
TASKS = ("a cat", "a dog", "a fox")


def trainer(algorithm: Algorithm = GAIN, rewards: Scorer = SUM) -> tuple[Trainer, Linear]:
    theta = torch.linspace(-0.3, 0.4, 6, dtype=torch.float64).requires_grad_()
    env = Linear(FlowSDE(0.7), schedule(6, 3), theta, shape=(2,))
    return Trainer(env, rewards, algorithm, Counted([theta], 0.0), 8), env


def expected_sample(env: Linear, tree: Tree, nodes: Tensor) -> Tensor:
    """x̂₀ = x - σ v(x) of the linear world, from its closed form."""
    state = tree.at(nodes)
    sigma = env.schedule.sigma[state.step][:, None]
    variance = (1 - sigma) ** 2 * env.spread**2 + sigma**2
    pull = (sigma - (1 - sigma) * env.spread**2) / variance
    theta = env.theta.detach()[state.step][:, None]
    velocity = pull * (state.x - (1 - sigma) * env.mean) - env.mean + theta
    return state.x - sigma * velocity


def test_a_preview_is_the_sample_that_the_network_expects_at_its_node() -> None:
    train, env = trainer()
    tree = train.iterate(TASKS).tree
    assert tree.previewed is not None and tree.x0 is not None
    assert len(tree.previewed) == 3 * 2 * SPEC.previews
    expected = expected_sample(env, tree, tree.previewed)
    assert torch.allclose(tree.x0, expected, rtol=0, atol=1e-13)
    assert bool(env.terminal(tree.previews()).all())


def test_of_data_with_no_spread_the_preview_without_theta_is_their_mean_at_every_node() -> None:
    theta = torch.zeros(6, dtype=torch.float64).requires_grad_()
    env = Linear(FlowSDE(0.7), schedule(6, 3), theta, mean=0.7, spread=0.0, shape=(2,))
    train = Trainer(env, SUM, GAIN, Counted([theta], 0.0), 8)
    tree = train.iterate(TASKS).tree
    assert tree.x0 is not None
    assert torch.allclose(tree.x0, torch.full_like(tree.x0, 0.7), rtol=0, atol=1e-12)


def test_with_the_parents_baseline_an_advantage_is_the_gain_of_the_previews_reward() -> None:
    train, env = trainer()
    step = train.iterate(TASKS)
    tree = step.tree
    reward = torch.full((len(tree),), math.nan, dtype=torch.float64)
    assert tree.previewed is not None
    reward[tree.previewed] = expected_sample(env, tree, tree.previewed).sum(1)
    edges = tree.edges
    gain = reward[edges] - reward[tree.parent[edges]]
    assert torch.allclose(step.advantages.advantage[edges], gain, rtol=0, atol=1e-12)
    assert float(gain.abs().max()) > 0.3
    # summed along a path they telescope: what the window gained in all
    last = tree.level(4)
    nodes = torch.arange(last.start, last.stop)
    total_gain = torch.zeros(len(nodes), dtype=torch.float64)
    for _ in range(3):
        total_gain += step.advantages.advantage[nodes]
        nodes = tree.parent[nodes]
    window = reward[torch.arange(last.start, last.stop)] - reward[nodes]
    assert torch.allclose(total_gain, window, rtol=0, atol=1e-12)


def test_where_leaves_end_the_window_their_own_score_ends_the_gain() -> None:
    train, env = trainer(replace(GAIN, branching=Always(TreeSpec((2,) * 6, (True,) * 6))))
    env.noisy = replace(env.noisy, std=env.noisy.std.clamp(min=0.1))
    step = train.iterate(TASKS[:1])
    tree = step.tree
    parent = tree.parent[tree.leaves]
    gain = tree.at(tree.leaves).x.sum(1) - expected_sample(env, tree, parent).sum(1)
    assert torch.allclose(step.advantages.advantage[tree.leaves], gain, rtol=0, atol=1e-12)


def test_previews_cost_no_forward_and_change_no_tree() -> None:
    train, env = trainer()
    tree = train.iterate(TASKS).tree
    plain, plain_env = trainer(replace(GAIN, previews=False))
    plain_tree = plain.iterate(TASKS).tree
    assert env.forwards == plain_env.forwards
    assert torch.equal(tree.x, plain_tree.x) and plain_tree.previewed is None
    with pytest.raises(ValueError, match="grown without previews"):
        plain_tree.previews()


def test_an_environment_that_expects_no_sample_cannot_be_previewed() -> None:
    class Silent(Linear):
        def policy(self, state: State, stochastic: bool) -> Gaussian:
            return replace(super().policy(state, stochastic), x0=None)

    theta = torch.zeros(6, dtype=torch.float64).requires_grad_()
    train = Trainer(Silent(FlowSDE(), schedule(6, 3), theta), SUM, GAIN, Counted([theta]), 8)
    with pytest.raises(InputError, match=r"tree.previews: expected false, as Silent's policy says"):
        train.iterate(TASKS)


def blind_to(condition: Tensor, samples: Samples) -> Tensor:
    return torch.where(condition, math.nan, total(samples))


def blind_to_dogs(samples: Samples) -> Tensor:
    """The sum, but no number for one task."""
    dogs = torch.tensor([task == "a dog" for task in samples.tasks])
    return blind_to(dogs, samples)


@pytest.mark.parametrize("previews", [False, True])
def test_a_dropped_tree_changes_nothing_but_its_own_task(previews: bool) -> None:
    algorithm = replace(GAIN, previews=previews, baseline=LeaveSubtreeOut(), normaliser=Centred())
    train, _ = trainer(algorithm, PlainRewards({"blind": blind_to_dogs}))
    step = train.iterate(TASKS)
    whole_train, _ = trainer(algorithm)
    whole = whole_train.iterate(TASKS)
    kept = whole.tree.task != 1
    assert step.metrics["dropped_trees"] == 2 and step.metrics["leaves"] == 2 * 2 * SPEC.leaves
    assert step.metrics["zero_std_prompts"] == 0 and whole.metrics["dropped_trees"] == 0
    assert torch.equal(step.tree.key, whole.tree.key[kept])
    assert torch.equal(step.tree.log_prob.nan_to_num(), whole.tree.log_prob[kept].nan_to_num())
    assert torch.equal(step.scores.nan_to_num(-9), whole.scores[kept].nan_to_num(-9))
    expected = whole.advantages.advantage[kept]
    assert torch.allclose(step.advantages.advantage, expected, rtol=0, atol=1e-12)
    leaves = torch.isin(whole.tree.leaves, kept.nonzero())
    finished = step.samples(step.tree.leaves)
    assert torch.equal(finished.images, whole.samples(whole.tree.leaves).images[leaves])
    assert set(finished.tasks) == {"a cat", "a fox"}
    if previews:
        assert step.tree.x0 is not None and whole.tree.previewed is not None
        assert whole.tree.x0 is not None
        previewed = kept[whole.tree.previewed]
        assert torch.equal(step.tree.x0, whole.tree.x0[previewed])
        assert torch.equal(step.tree.previews().task, whole.tree.previews().task[previewed])


def test_a_preview_without_a_score_drops_its_tree_as_a_leaf_does() -> None:
    train, _ = trainer()
    tree = train.iterate(TASKS).tree
    assert tree.x0 is not None and tree.previewed is not None
    bad = float(tree.x0[17].sum())
    root = tree.roots()[tree.previewed[17]]

    def blind(samples: Samples) -> Tensor:
        return blind_to((total(samples) - bad).abs() < 1e-12, samples)

    again, _ = trainer(rewards=PlainRewards({"blind": blind}))
    step = again.iterate(TASKS)
    assert step.metrics["dropped_trees"] == 1
    assert torch.equal(step.tree.key, tree.key[tree.roots() != root])
    assert not step.scores[step.tree.leaves].isnan().any()


@pytest.mark.parametrize("baseline", [Prompt(), LeaveSubtreeOut()], ids=str)
def test_previews_move_no_baseline_that_is_a_mean_of_leaves(baseline: Baseline) -> None:
    train, _ = trainer(replace(GAIN, branching=Always(window(6, 0, 3, 2)), baseline=baseline))
    step = train.iterate(TASKS)
    tree = step.tree
    score = step.scores[:, 0]
    centre = step.advantages.values - step.advantages.advantage
    for node in tree.edges.tolist():
        below = [node in path(tree, leaf) for leaf in tree.leaves.tolist()]
        outside = tree.task[tree.leaves] == tree.task[node]
        if isinstance(baseline, LeaveSubtreeOut):
            outside &= ~torch.tensor(below)
        expected = float(score[tree.leaves][outside].mean())
        assert float(centre[node]) == pytest.approx(expected, abs=1e-12)


def test_when_every_tree_is_without_a_score_the_run_stops_and_nothing_moved() -> None:
    def blind(samples: Samples) -> Tensor:
        return torch.full((len(samples),), math.nan)

    train, _ = trainer(rewards=PlainRewards({"blind": blind}))
    with pytest.raises(RewardError, match="all 6 trees of the iteration have a sample without"):
        train.iterate(TASKS)
    assert isinstance(train.optimizer, Counted) and train.optimizer.steps == 0


def test_a_reward_that_fails_stops_the_run_and_nothing_moved() -> None:
    def broken(samples: Samples) -> Tensor:
        raise RewardError("reward broken: always")

    train, _ = trainer(rewards=PlainRewards({"broken": broken}))
    with pytest.raises(RewardError, match="reward broken: always"):
        train.iterate(TASKS)
    assert isinstance(train.optimizer, Counted) and train.optimizer.steps == 0
