"""Tails in fewer moves: what they count, where they lead, and that nothing else changes."""

import runpy
from pathlib import Path

import pytest
import torch
from oracle import Neural, schedule
from plain import SUM, Counted, roots

from treerl import registry
from treerl.config.resolve import resolve
from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import Fixed, Geometric, window
from treerl.engine.env import Env
from treerl.engine.grow import grow
from treerl.engine.kernel import FlowSDE
from treerl.engine.objective import Clipped
from treerl.engine.trainer import Trainer
from treerl.engine.tree_spec import Tail, TreeSpec
from treerl.errors import InputError
from treerl.run.assemble import build
from treerl.run.plan import count, plan_of


def test_the_script_that_compares_tails_finds_the_whole_one_equal_to_itself() -> None:
    script = Path(__file__).parent.parent / "benchmarks" / "tails.py"
    rows = runpy.run_path(str(script))["rows"]("sd35", 2, ["tree.branching.depth=2"])
    assert [row["forwards a tree"] for row in rows] == [1 + 1 + 2 + 4 * n for n in (7, 3, 3, 1)]
    for name in ("r of scores", "r of advantages"):
        first, *others = [row[name] for row in rows]
        assert first == pytest.approx(1) and all(0.5 < other < 1 for other in others), name


def test_a_tail_of_five_steps_in_strides_of_two_is_two_moves_the_last_takes_the_rest() -> None:
    full = window(10, 1, 4, 2)
    short = full.walked(Tail(2))
    assert short.strides == (1,) * 5 + (2, 3) and short.steps == 10
    assert short.at == (0, 1, 2, 3, 4, 5, 7, 10)
    assert short.forwards == 1 + 15 + 16 * 2 and full.forwards == 1 + 15 + 16 * 5
    assert (short.leaves, short.decisions, short.edges) == (16, 15, 30)
    assert full.walked(Tail(3)).strides[-1] == 5  # 5 // 3 is one move
    assert full.walked(Tail(99)).forwards == 1 + 15 + 16
    assert full.walked(Tail(1)) is full
    assert full.walked(Tail(1, 2)).strides == (1,) * 10


def test_a_plan_counts_the_moves_of_a_shortened_tail() -> None:
    config = resolve(
        None,
        {},
        [
            "tree.branching=fixed",
            "tree.branching.branching_factor=2",
            "tree.branching.depth=4",
            "tree.branching.start=1",
            "tree.tail_stride=2",
        ],
    )
    algorithm = build(config).algorithm
    plan = plan_of(config, algorithm)
    (spec,) = plan.support
    assert count(spec, algorithm).sampling_forwards == 48
    assert plan.total(1).sampling_forwards == 48 * 8


def test_only_deterministic_moves_may_leap() -> None:
    with pytest.raises(ValueError, match="a sampled move takes one step, got 2"):
        TreeSpec((2, 1), (True, False), (2, 1))
    with pytest.raises(ValueError, match="same strides"):
        specs = [window(6, 0, 2, 2), window(6, 0, 2, 2).walked(Tail(2))]
        grow(env(), roots(2), specs, rows=4)


def env() -> Neural:
    return Neural(FlowSDE(0.7), schedule(6, 3)).with_tasks([0, 1])


def test_the_tail_changes_the_leaves_alone() -> None:
    full = window(6, 1, 2, 3)
    long = grow(env(), roots(2), full, rows=4)
    short = grow(env(), roots(2), full.walked(Tail(2)), rows=4)
    assert torch.equal(long.log_prob[long.edges], short.log_prob[short.edges])
    assert torch.equal(long.at(long.edges).x, short.at(short.edges).x)
    assert short.steps == 6 and short.depth == 4
    assert bool((short.step[short.leaves] == 6).all())
    gap = (long.at(long.leaves).x - short.at(short.leaves).x).abs().max()
    assert 1e-6 < float(gap) < 1


def test_strides_of_one_lead_where_the_environments_own_steps_lead() -> None:
    full = window(6, 1, 2, 3)
    one = TreeSpec(full.children, full.stochastic, full.strides, order=1)
    plain = grow(env(), roots(2), one, rows=4)
    stepped = grow(env(), roots(2), full.walked(Tail(1, 2)), rows=4)
    # of second order, but its first move, which has nothing to look back at
    assert torch.equal(plain.at(plain.edges).x, stepped.at(stepped.edges).x)
    assert not torch.equal(plain.at(plain.leaves).x, stepped.at(stepped.leaves).x)


def test_forwards_are_those_that_the_spec_counts() -> None:
    for order in (1, 2):
        world = env()
        spec = window(6, 0, 2, 2).walked(Tail(2, order))
        tree = grow(world, roots(2), spec, rows=1)
        assert world.forwards == 2 * spec.forwards == sum(tree.sizes[:-1])


def test_an_empty_forest_has_a_tail_of_second_order_too() -> None:
    nothing = roots(2).part(range(0))
    tree = grow(env(), nothing, window(6, 0, 2, 2).walked(Tail(2, 2)), rows=4)
    assert len(tree) == 0 and tree.depth == 4


@pytest.mark.parametrize(
    ("sets", "got"),
    [
        (["tree.tail_stride=2"], r"2, 1 and \[\]"),
        (["tree.tail_stride=1", "tree.granularities=[2]"], r"1, 1 and \[2\]"),
    ],
)
def test_a_run_in_an_environment_that_takes_every_step_is_refused_before_its_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, sets: list[str], got: str
) -> None:
    config = resolve(None, {}, sets)
    monkeypatch.setattr(registry.load("envs", "denoising"), "leaps", False)
    family = registry.load("backbones", "sd35")
    monkeypatch.setattr(family, "load", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(InputError, match=rf"tree\.tail_stride: expected 1.*got {got}"):
        build(config)


def test_a_preview_at_the_beginning_of_a_tail_is_the_networks_own() -> None:
    spec = window(6, 1, 2, 2)
    long = grow(env(), roots(2), spec, rows=4, previews=True)
    short = grow(env(), roots(2), spec.walked(Tail(2)), rows=4, previews=True)
    assert long.previewed is not None and short.previewed is not None
    assert torch.equal(long.previewed, short.previewed)
    assert torch.equal(long.previews().x, short.previews().x)
    assert bool((short.previews().step == 6).all())


class Rigid(Neural):
    """A world that takes every step."""

    leap = Env.leap


def test_an_environment_that_cannot_leap_says_so() -> None:
    rigid = Rigid(FlowSDE(0.7), schedule(6, 3)).with_tasks([0, 1])
    with pytest.raises(
        InputError, match=r"tree\.tail_stride: .*Rigid takes every step, got a tail"
    ):
        grow(rigid, roots(2), window(6, 0, 2, 2).walked(Tail(2)), rows=4)


def test_a_trainer_trains_with_a_shortened_tail() -> None:
    world = env()
    algorithm = Algorithm(
        branching=Geometric(branching_factor=2, depth=2),
        tail_stride=2,
        tail_order=2,
        objective=Clipped(0.1),
    )
    optimizer = Counted(list(world.network.parameters()), lr=1e-3)
    step = Trainer(world, SUM, algorithm, optimizer).iterate([0, 1, 2])
    assert step.metrics["ratio_deviation"] == 0
    spec = algorithm.trees.support(6)[0]
    assert spec.strides != (1,) * 6
    assert step.tree.steps == 6


def test_the_real_environment_leaps_as_it_steps() -> None:
    session = build(resolve(None, {}, ["evaluate.max_prompts=1"]))
    denoising = session.env.with_tasks(session.tasks[:2])
    spec = Fixed(2, 2, 1).distribution(10, 0)[0][1]
    tree = grow(denoising, roots(2), spec, rows=8)
    nodes = tree.edges[-4:]
    state = tree.at(nodes)
    with torch.no_grad():
        leap = denoising.leap(state, 1, None)
        policy = denoising.policy(state, stochastic=False)
    torch.testing.assert_close(leap.x, policy.mode, atol=1e-6, rtol=1e-6)
    assert leap.x0 is not None and policy.denoised is not None
    torch.testing.assert_close(leap.x0, policy.denoised)
    short = grow(denoising, roots(2), spec.walked(Tail(2, 2)), rows=8)
    gap = (short.at(short.leaves).x - tree.at(tree.leaves).x).square().mean().sqrt()
    rough = grow(denoising, roots(2), spec.walked(Tail(9)), rows=8)
    worse = (rough.at(rough.leaves).x - tree.at(tree.leaves).x).square().mean().sqrt()
    assert float(gap) < 0.5 * float(worse)
