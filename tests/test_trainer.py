"""The trainer: one iteration against the same sums written out, on the linear world."""

from dataclasses import replace

import pytest
import torch
from oracle import Linear, closed_form, schedule
from plain import SUM, Absolute, Always, Counted, PlainRewards, total
from torch import Tensor

from treerl.engine import noise
from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import LeaveSubtreeOut, Prompt, Siblings
from treerl.engine.branching import Fixed, Geometric
from treerl.engine.kernel import FlowSDE
from treerl.engine.minibatch import Reduction
from treerl.engine.normaliser import Centred, Raw, Standardised
from treerl.engine.objective import Clipped
from treerl.engine.scorer import Scorer
from treerl.engine.step import Step
from treerl.engine.task import Samples
from treerl.engine.trainer import Trainer
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec

SPEC = TreeSpec((1, 3, 1, 2, 1, 1), (False, True, True, True, False, False))
PLAIN = Algorithm(
    branching=Always(SPEC),
    normaliser=Standardised(),
    baseline=LeaveSubtreeOut(),
    objective=Clipped(0.2),
    optimizer_steps=1,
)
TASKS = ("a cat", "a dog", "a fox")


def world(dims: int = 1) -> Linear:
    theta = torch.linspace(-0.3, 0.4, 6, dtype=torch.float64).requires_grad_()
    return Linear(FlowSDE(0.7), schedule(6, 3), theta, shape=(dims,))


def trainer(
    env: Linear, algorithm: Algorithm = PLAIN, rewards: Scorer = SUM, max_grad_norm: float = 1e9
) -> Trainer:
    optimizer = Counted([env.theta])
    return Trainer(env, rewards, algorithm, optimizer, 8, max_grad_norm=max_grad_norm)


def moved(env: Linear, train: Trainer, tasks: tuple[str, ...] = TASKS) -> tuple[Step, Tensor]:
    """One iteration, and what it added to θ: minus the gradient, at a learning rate of 1."""
    before = env.theta.detach().clone()
    step = train.iterate(tasks)
    return step, env.theta.detach() - before


def by_hand(env: Linear, step: Step, theta: Tensor, weight: Tensor) -> Tensor:
    """Σ weight · advantage · ∇ log-density / D over the sampled edges, from the closed form."""
    tree = step.tree
    sigma = env.schedule.sigma.tolist()
    closed = closed_form(FlowSDE(0.7), sigma, env.mean, env.spread, SPEC.stochastic)
    ascent = torch.zeros(6, dtype=torch.float64)
    for node in tree.edges.tolist():
        k = int(tree.step[node]) - 1
        parent = tree.at(tree.parent[node : node + 1]).x
        child = tree.at(torch.tensor([node])).x
        mean = closed.a[k] * parent + closed.b[k] + closed.c[k] * theta[k]
        score = float((child - mean).mean()) * closed.c[k] / closed.s[k] ** 2
        ascent[k] += weight[node] * step.advantages.advantage[node] * score
    return ascent


@pytest.mark.parametrize("reduction", ["nodes", "edges", "depths"])
@pytest.mark.parametrize("dims", [1, 3])
def test_an_update_climbs_along_the_sum_of_advantage_times_score(
    reduction: Reduction, dims: int
) -> None:
    env = world(dims)
    theta = env.theta.detach().clone()
    step, ascent = moved(env, trainer(env, replace(PLAIN, reduction=reduction)))
    tree = step.tree
    edges = torch.bincount(tree.step[tree.edges], minlength=7).double()
    nodes = len(torch.unique(tree.parent[tree.edges]))
    weight = {
        "nodes": torch.full((len(tree),), 1 / nodes, dtype=torch.float64),
        "edges": torch.full((len(tree),), 1 / len(tree.edges), dtype=torch.float64),
        "depths": 1 / (3 * edges[tree.step]),
    }[reduction]
    assert torch.allclose(ascent, by_hand(env, step, theta, weight), rtol=1e-11, atol=1e-13)
    assert float(ascent.abs().max()) > 1e-3 and step.metrics["ratio_deviation"] == 0


def test_a_reward_that_grows_with_theta_pushes_theta_where_it_grows() -> None:
    # the sign alone: of d E[x] / d θ_k, which is negative, over a thousand trees
    env = world()
    _, ascent = moved(env, trainer(env), tuple(str(row) for row in range(300)))
    sigma = env.schedule.sigma.tolist()
    exact = closed_form(FlowSDE(0.7), sigma, env.mean, env.spread, SPEC.stochastic).gradient()
    for k in (1, 2, 3):
        assert float(ascent[k]) * exact[k] > 0
    assert not ascent[[0, 4, 5]].any()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_minus_the_reward_moves_the_policy_by_minus_as_much(sign: float) -> None:
    env = world()
    _, ascent = moved(env, trainer(env, rewards=PlainRewards({"sum": total}, (sign,))))
    other = world()
    _, expected = moved(other, trainer(other))
    assert torch.allclose(ascent, sign * expected, rtol=1e-12, atol=0)


def first(samples: Samples) -> Tensor:
    return samples.images[:, 0].double()


def square(samples: Samples) -> Tensor:
    return samples.images.square().sum(1).double()


@pytest.mark.parametrize("normaliser", [Standardised(), Raw(), Centred()], ids=str)
def test_the_weights_of_the_rewards_enter_what_is_trained_on(
    normaliser: Standardised | Raw | Centred,
) -> None:
    env = world(2)
    rewards = PlainRewards({"first": first, "square": square}, (1.0, -0.5))
    algorithm = replace(PLAIN, normaliser=normaliser, baseline=Prompt())
    step, _ = moved(env, trainer(env, algorithm, rewards))
    leaves = step.tree.leaves
    expected = torch.zeros(len(leaves), dtype=torch.float64)
    for row in range(3):
        mine = step.tree.task[leaves] == row
        each = step.scores[leaves][mine]
        if isinstance(normaliser, Standardised):
            each = (each - each.mean(0)) / each.std(0, correction=0)
        both = each[:, 0] - 0.5 * each[:, 1]
        unit = both.std(correction=0) if isinstance(normaliser, Raw) else 1.0
        expected[mine] = (both - both.mean()) / unit
    assert torch.allclose(step.advantages.advantage[leaves], expected, rtol=0, atol=1e-12)
    totals = step.scores[leaves][:, 0] - 0.5 * step.scores[leaves][:, 1]
    assert step.metrics["reward"] == pytest.approx(float(totals.mean()), abs=1e-12)
    assert step.metrics["rewards"]["square"] == pytest.approx(
        float(step.scores[leaves][:, 1].mean())
    )


def test_the_gradient_is_cut_to_the_largest_norm_and_reported_as_it_was() -> None:
    env = world()
    step, whole = moved(env, trainer(env))
    norm = float(whole.norm())
    assert step.metrics["grad_norm"] == pytest.approx(norm, rel=1e-9)
    other = world()
    cut_step, cut = moved(other, trainer(other, max_grad_norm=norm / 7))
    assert torch.allclose(cut, whole / 7, rtol=1e-4, atol=0)  # torch adds 1e-6 to the norm
    assert cut_step.metrics["grad_norm"] == pytest.approx(norm, rel=1e-9)


def test_advantages_are_clipped_where_the_algorithm_says() -> None:
    env = world()
    step, _ = moved(env, trainer(env, replace(PLAIN, advantage_clip=0.4)))
    advantage = step.advantages.advantage
    free = trainer(world(), replace(PLAIN, advantage_clip=1e9)).iterate(TASKS).advantages.advantage
    assert torch.equal(advantage, free.clamp(-0.4, 0.4)) and float(free.abs().max()) > 1


@pytest.mark.parametrize("normalise", [True, False])
def test_advantages_are_divided_by_their_baselines_scale_when_the_algorithm_says_so(
    normalise: bool,
) -> None:
    algorithm = replace(PLAIN, baseline=Siblings(), normaliser=Absolute(), normalise=normalise)
    step = trainer(world(), algorithm).iterate(TASKS)
    family = step.tree.edges[step.tree.step[step.tree.edges] == 2].view(3, 3)
    values = step.advantages.values[family]
    gap = values - values.mean(1, keepdim=True)
    expected = gap / gap.square().mean(1, keepdim=True).sqrt() if normalise else gap
    assert torch.allclose(step.advantages.advantage[family], expected, rtol=0, atol=1e-12)


def test_an_iteration_depends_on_its_seed_and_number_and_not_on_its_rows() -> None:
    def tree(seed: int, rows: int, iteration: int) -> Tree:
        env = world()
        algorithm = replace(PLAIN, branching=Geometric(2, 2, 0.5))
        train = Trainer(env, SUM, algorithm, Counted([env.theta]), rows, seed)
        train.iteration = iteration
        return train.iterate(TASKS).tree

    expected = tree(3, 8, 2)
    for rows in (1, 5, 64):
        again = tree(3, rows, 2)
        assert torch.equal(again.x, expected.x) and torch.equal(again.key, expected.key)
    assert not torch.isin(tree(3, 8, 3).key, expected.key).any()
    assert not torch.isin(tree(4, 8, 2).key, expected.key).any()


@pytest.mark.parametrize("shared", [False, True])
def test_the_trees_of_a_prompt_start_from_one_noise_where_the_algorithm_says_so(
    shared: bool,
) -> None:
    algorithm = replace(PLAIN, branching=Fixed(2, 1, 0), trees_per_prompt=4, shared_noise=shared)
    tree = trainer(world(), algorithm).iterate(TASKS).tree
    start = tree.at(torch.arange(12)).x.view(3, 4)
    assert len(torch.unique(start)) == (3 if shared else 12)
    assert bool((start == start[:, :1]).all()) == shared
    assert len(torch.unique(tree.at(tree.leaves).x)) == 24


def test_the_trees_of_an_algorithm_are_drawn_anew_in_every_iteration() -> None:
    env = world()
    train = trainer(env, replace(PLAIN, branching=Geometric(2, 2, 0.9)))
    starts = [train.iterate(TASKS[:1]).metrics["window_start"] for _ in range(30)]
    drawn = [int(noise.generator(0, noise.Stream.SHAPE, i).random() * 1e9) for i in range(30)]
    assert len(set(starts)) == 4 and len(set(drawn)) == 30 and train.iteration == 30
    other = replace(trainer(world(), train.algorithm), seed=1)
    assert [other.iterate(TASKS[:1]).metrics["window_start"] for _ in range(30)] != starts


def test_an_optimizer_step_follows_the_gradient_of_its_own_nodes_alone() -> None:
    def ascent(steps: int) -> Tensor:
        env = world()
        train = trainer(env, replace(PLAIN, optimizer_steps=steps))
        train.optimizer = Counted([env.theta], 1e-6)  # so small that the policy stays where it is
        return moved(env, train, TASKS[:2])[1] / 1e-6

    # 14 nodes in halves of seven: the two means add up to twice the mean of all
    assert torch.allclose(ascent(2), 2 * ascent(1), rtol=1e-4, atol=1e-6)


def test_optimizer_steps_are_as_many_as_the_algorithm_says() -> None:
    for count in (1, 2, 5):
        env = world()
        train = trainer(env, replace(PLAIN, optimizer_steps=count))
        step = train.iterate(TASKS)
        assert isinstance(train.optimizer, Counted) and train.optimizer.steps == count
        assert step.metrics["update_forwards"] == 3 * SPEC.decisions
        assert step.metrics["edges"] == 3 * SPEC.edges
        assert step.metrics["sampling_forwards"] == 3 * SPEC.forwards
        assert step.metrics["leaves"] == 3 * SPEC.leaves
