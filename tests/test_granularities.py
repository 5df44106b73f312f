"""Leaves that are finished by several strides (G²RPO): what that costs, gives and is paid for."""

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from oracle import Neural, schedule
from plain import SUM, PlainRewards, roots, total
from torch import Tensor

from treerl.config.resolve import resolve
from treerl.engine.branching import Fixed, ode, window
from treerl.engine.branchings.star import Star
from treerl.engine.grow import grow
from treerl.engine.kernel import FlowSDE
from treerl.engine.normaliser import Scores, Standardised
from treerl.engine.peers import Alone
from treerl.engine.policy import Gaussian
from treerl.engine.recipes import recipes
from treerl.engine.scoring import score
from treerl.engine.step import Step
from treerl.engine.task import Samples
from treerl.engine.trainer import Trainer
from treerl.engine.tree import State, Tree
from treerl.engine.tree_spec import Tail
from treerl.errors import InputError, RewardError
from treerl.run.plan import count

PAIRS = window(6, 0, 2, 2)  # four leaves, with four steps left
WORD = "a list of 0 to 8 whole numbers from 1 to 1000"


def squares(samples: Samples) -> Tensor:
    return samples.images.double().flatten(1).square().sum(1)


def env() -> Neural:
    return Neural(FlowSDE(0.7), schedule(6, 3)).with_tasks([0, 1])


def test_five_steps_by_two_and_by_three_are_three_moves_and_two() -> None:
    spec = window(10, 1, 4, 2).walked(Tail(granularities=(2, 3, 9)))
    assert spec.walks == ((2, 2, 1), (3, 2), (5,))
    assert spec.forwards == 1 + 15 + 16 * (5 + 3 + 2 + 1)
    assert (spec.leaves, spec.finished) == (16, 64)
    assert spec.stored == window(10, 1, 4, 2).stored + 48


def test_a_branch_of_g2rpo_costs_the_papers_sum_of_rounded_parts() -> None:
    """From a split at step s with k left: s + 1 forwards, then G Σ ⌈k / λ⌉ over λ = 1, 2, 3."""
    algorithm = replace(recipes["g2rpo"], branching=Star(branching_factor=12, part=0.5))
    for _, spec in algorithm.trees.distribution(16, 0):
        left = 16 - spec.start - 1
        expected = spec.start + 1 + 12 * sum(-(-left // stride) for stride in (1, 2, 3))
        work = count(spec, algorithm)
        assert (work.sampling_forwards, work.decodes) == (expected, 36)


def test_a_tree_without_a_sampled_step_is_walked_once_and_that_is_refused() -> None:
    assert ode(6).walked(Tail(granularities=(2,))) == ode(6)
    with pytest.raises(InputError) as error:
        resolve(None, {}, ["recipe=awm", "tree.granularities=[2]"])
    assert "expected none, as no step is sampled" in str(error.value)


@pytest.mark.parametrize("strides", [(0,), (-1,), (2, 0)])
def test_a_stride_that_leads_nowhere_is_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="1 step or more at once"):
        Tail(granularities=strides)
    assert Tail(granularities=[2, 3]).granularities == (2, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [1, 2])
def test_each_walk_ends_where_a_tail_of_its_strides_ends(order: int) -> None:
    plain = grow(env(), roots(2), PAIRS.walked(Tail(1, order)), rows=3)
    several = grow(env(), roots(2), PAIRS.walked(Tail(1, order, (1, 2, 4))), rows=3)
    assert torch.equal(several.x, plain.x) and torch.equal(several.step, plain.step)
    own, again, *coarse = several.finished()
    assert torch.equal(own.x, plain.at(plain.leaves).x) and torch.equal(own.x, again.x)
    for stride, state in zip((2, 4), coarse, strict=True):
        alone = grow(env(), roots(2), PAIRS.walked(Tail(stride, order)), rows=3)
        assert torch.equal(state.x, alone.at(alone.leaves).x)
        assert torch.equal(state.step, own.step) and torch.equal(state.task, own.task)
        assert not torch.allclose(state.x, own.x, atol=1e-4)


def test_a_window_up_to_the_last_step_but_one_has_one_move_left_for_all() -> None:
    tree = grow(env(), roots(1), window(6, 2, 3, 2).walked(Tail(granularities=(2,))), rows=4)
    own, other = tree.finished()
    assert torch.equal(own.x, other.x)


def test_forwards_are_those_that_spec_and_tree_count() -> None:
    world = env()
    spec = PAIRS.walked(Tail(2, 1, (1, 3)))
    tree = grow(world, roots(2), spec, rows=1)
    assert world.forwards == 2 * spec.forwards == tree.forwards == 2 * (3 + 4 * (2 + 4 + 2))


def test_nothing_grows_of_nothing() -> None:
    tree = grow(env(), roots(2).part(range(0)), PAIRS.walked(Tail(granularities=(2,))), rows=4)
    assert [len(state.x) for state in tree.finished()] == [0, 0] and tree.forwards == 0


def test_every_walk_has_its_own_columns_of_scores() -> None:
    tree = grow(env(), roots(2), PAIRS.walked(Tail(granularities=(2, 4))), rows=4)
    expected = [state.x.double().flatten(1).sum(1) for state in tree.finished()]
    rewards = PlainRewards({"sum": total, "twice": lambda x: 2 * total(x)}, (1.0, 0.5))
    whole, scores, dropped = score(env(), tree, rewards, Alone())
    columns = [torch.stack([x, 2 * x], 1) for x in expected]
    torch.testing.assert_close(scores[whole.leaves], torch.stack(columns, 1))
    assert bool(scores[: int(whole.leaves[0])].isnan().all()) and dropped == 0
    assert whole.finishes == () and whole.forwards == tree.forwards


def test_a_preview_stands_for_every_walk() -> None:
    spec = PAIRS.walked(Tail(granularities=(2,)))
    tree = grow(env(), roots(2), spec, rows=4, previews=True)
    whole, scores, _ = score(env(), tree, SUM, Alone())
    assert whole.previewed is not None
    assert torch.equal(scores[whole.previewed, 0], scores[whole.previewed, 1])
    assert not bool(scores[whole.previewed].isnan().any())


def test_a_tree_whose_coarse_sample_cannot_be_scored_is_left_out() -> None:
    asked = []

    def once_wrong(samples: Samples) -> Tensor:
        scores = total(samples)
        asked.append(len(scores))
        if len(asked) == 2:  # the further walk
            scores[0] = torch.nan
        return scores

    tree = grow(env(), roots(2), PAIRS.walked(Tail(granularities=(2,))), rows=4)
    whole, scores, dropped = score(env(), tree, PlainRewards({"sum": once_wrong}), Alone())
    assert (dropped, whole.sizes[0], asked) == (1, 1, [8, 8])
    assert not bool(scores[whole.leaves].isnan().any())
    asked[:] = [0]

    def never(samples: Samples) -> Tensor:
        return torch.full((len(samples),), torch.nan)

    with pytest.raises(RewardError, match="all 2 trees"):
        score(env(), tree, PlainRewards({"sum": never}), Alone())


def test_the_advantage_is_the_sum_over_the_strides_of_each_ones_own() -> None:
    """2510.01982: A = Σ_λ (r_λ - mean r_λ) / std r_λ, over the branches of one node; each reward
    by itself.
    """
    world = env()
    algorithm = replace(
        recipes["g2rpo"], branching=Fixed(5, 1, 0), granularities=(2, 3), advantage_clip=99.0
    )
    optimizer = torch.optim.AdamW(world.network.parameters(), lr=1e-3)
    seen: list[Tree] = []
    rewards = PlainRewards({"sum": total, "square": squares}, (1.0, 0.3))
    trainer = Trainer(world, rewards, algorithm, optimizer)
    grown = trainer._rollout

    def kept(*arguments: Any) -> Tree:
        seen.append(grown(*arguments))
        return seen[-1]

    trainer._rollout = kept  # type: ignore[method-assign,assignment]
    step = trainer.iterate([0, 1])
    expected = torch.zeros(10, dtype=torch.float64)
    for state in seen[0].finished():
        x = state.x.double()
        for weight, reward in ((1.0, x.sum(1)), (0.3, x.square().sum(1))):
            for task in (0, 1):
                own = reward[state.task == task]
                unit = (own - own.mean()) / own.std(correction=0)
                expected[state.task == task] += weight * unit
    torch.testing.assert_close(step.advantages.advantage[step.tree.edges], expected)
    assert step.scores.shape == (len(step.tree), 2)
    assert step.metrics["sampling_forwards"] == 2 * (1 + 5 * (5 + 3 + 2))


def test_a_normaliser_that_remembers_sees_the_rewards_that_it_is_told_of() -> None:
    """What `observe` sees has K columns, so that what is called has, too."""
    seen: list[tuple[int, ...]] = []

    class Remembering(Standardised):
        def __call__(self, tree: Tree, scores: Tensor, weights: Tensor) -> Scores:
            seen.append((*scores.shape[1:], *weights.shape))
            return super().__call__(tree, scores, weights)

        def observe(self, step: Step) -> None:
            seen.append(tuple(step.scores.shape[1:]))

    world = env()
    algorithm = replace(recipes["g2rpo"], branching=Fixed(5, 1, 0), normaliser=Remembering())
    optimizer = torch.optim.AdamW(world.network.parameters(), lr=1e-3)
    rewards = PlainRewards({"sum": total, "square": squares}, (1.0, 0.3))
    trainer = Trainer(world, rewards, algorithm, optimizer)
    trainer.iterate([0, 1])
    trainer.iterate([0, 1])
    assert seen == [(2, 2), (2, 2), (2, 2), (2,)] * 2


def test_a_latent_that_nobody_reads_again_is_let_go_as_the_tree_grows() -> None:
    alive: list[int] = []

    class Watching(Neural):
        def policy(self, state: State, stochastic: bool) -> Gaussian:
            gc.collect()
            alive.append(sum(held() is not None for held in born))
            policy = super().policy(state, stochastic)
            return policy

        def transition(self, state: State, action: Tensor) -> State:
            born.append(weakref.ref(action))
            return super().transition(state, action)

    born: list[weakref.ref[Tensor]] = []
    world = Watching(FlowSDE(0.7), schedule(9, 3)).with_tasks([0])
    grow(world, roots(1), window(9, 0, 1, 2), rows=4)
    assert max(alive) <= 2  # the split's children, and where their tails have come to
