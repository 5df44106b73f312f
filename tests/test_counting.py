"""Counting: what a rollout costs, counted on real rollouts, against the closed forms."""

import pytest
import torch
from oracle import KERNELS, Neural, planted, schedule

from treerl.engine.branching import (
    Branching,
    Fixed,
    Geometric,
    Shape,
    Shift,
    Uniform,
    ode,
    width,
    window,
)
from treerl.engine.grow import chunks, grow
from treerl.engine.tree import Tree
from treerl.run.plan import count


def grown(shape: Shape, roots: int = 1, prompts: int = 1, rows: int = 1) -> tuple[Tree, int]:
    """A rollout and how many rows went through the network."""
    env = Neural(KERNELS[0], schedule(shape.steps), (1,), width=1)
    tree = grow(env, planted(prompts, roots), shape, rows)
    return tree, env.asked


@pytest.mark.parametrize(
    ("branch", "depth", "forwards"),
    [(3, 3, (202, 176, 150, 124, 98, 72, 46)), (2, 4, (111, 96, 81, 66, 51, 36))],
    ids=["paper", "code"],
)
def test_a_window_costs_the_forwards_that_the_paper_and_its_code_do(
    branch: int, depth: int, forwards: tuple[int, ...]
) -> None:
    trained = sum(branch**level for level in range(depth))
    assert (trained, branch**depth) == {(3, 3): (13, 27), (2, 4): (15, 16)}[branch, depth]
    for start, expected in enumerate(forwards):
        shape = window(10, start, depth, branch)
        tree, asked = grown(shape)
        assert asked == expected == sum(tree.sizes[:-1]) == count(shape, 1).sampling_forwards
        assert asked == start + trained + (10 - start - depth) * branch**depth
        assert len(tree.leaves) == branch**depth == count(shape, 1).leaves
        assert len(tree.edges) == branch * trained == count(shape, 1).edges
        assert (
            len(set(tree.parent[tree.edges].tolist())) == trained == count(shape, 1).update_forwards
        )
        # latents kept: both ends of every sampled edge (trained + branch**depth) and the leaves
        kept = trained + branch**depth + branch**depth
        assert len(tree.x) == kept == int((tree.slot != Tree.DROPPED).sum())


@pytest.mark.parametrize("seed", range(20))
def test_any_shape_costs_the_general_closed_form(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stochastic = tuple(bool(one) for one in torch.randint(0, 2, (6,), generator=generator))
    children = tuple(
        int(torch.randint(1, 4, (1,), generator=generator)) if one else 1 for one in stochastic
    )
    roots, prompts = 1 + seed % 3, 1 + seed % 2
    tree, asked = grown(Shape(children, stochastic, 0), roots, prompts)
    live = [roots * prompts]
    for one in children:
        live.append(live[-1] * one)
    assert tree.sizes == tuple(live)
    assert asked == sum(live[:-1])
    assert len(tree.edges) == sum(
        after for after, sampled in zip(live[1:], stochastic, strict=True) if sampled
    )
    assert len(tree.leaves) == live[-1]
    assert torch.equal(
        torch.bincount(tree.prompt[tree.leaves]), torch.full((prompts,), live[-1] // prompts)
    )


def test_the_last_chunk_is_padded_and_its_padding_is_not_counted_as_nodes() -> None:
    shape = window(5, 1, 2, 3)
    plain, asked = grown(shape, rows=1)
    padded, padded_asked = grown(shape, rows=4)
    assert plain.sizes == padded.sizes == (1, 1, 3, 9, 9, 9)
    assert asked == 23 and padded_asked == 4 * (1 + 1 + 1 + 3 + 3)
    assert torch.allclose(plain.x, padded.x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("total", range(1, 20))
@pytest.mark.parametrize("rows", range(1, 8))
def test_chunks_cover_every_row_once_at_one_row_count(total: int, rows: int) -> None:
    found = list(chunks(total, rows))
    assert all(len(index) == rows for index, _ in found)
    assert torch.equal(torch.cat([index[:real] for index, real in found]), torch.arange(total))
    assert all(int(index.max()) < total and int(index.min()) >= 0 for index, _ in found)


def test_nodes_stand_level_by_level_parents_first_and_siblings_adjacent() -> None:
    tree, _ = grown(Shape((2, 3, 1, 2, 1), (True, True, True, True, False), 0), roots=2, prompts=2)
    inner = torch.arange(tree.sizes[0], len(tree))
    assert bool((tree.parent[: tree.sizes[0]] == Tree.NO_PARENT).all())
    assert bool((tree.parent[inner] < inner).all()) and bool((tree.parent[inner].diff() >= 0).all())
    assert torch.equal(tree.step[inner], tree.step[tree.parent[inner]] + 1)
    assert torch.equal(tree.prompt[inner], tree.prompt[tree.parent[inner]])
    for step in range(6):
        assert bool((tree.step[tree.level(step)] == step).all())
    assert [tree.path(int(leaf))[0] for leaf in tree.leaves[:12]] == [0] * 12
    assert tree.path(int(tree.leaves[-1])) == [3, 11, 35, 59, 107, len(tree) - 1]


def expected_forwards(branching: Branching, iterations: int = 1) -> float:
    laws = [branching.law(10, iteration) for iteration in range(iterations)]
    return (
        sum(chance * count(shape, 1).sampling_forwards for law in laws for chance, shape in law)
        / iterations
    )


def test_the_random_window_has_the_printed_law_and_cost() -> None:
    law = Geometric(3, 3, 0.5).law(10, 0)
    assert [shape.start for _, shape in law] == list(range(7))
    printed = [0.504, 0.252, 0.126, 0.063, 0.0315, 0.0157, 0.0079]
    assert [chance for chance, _ in law] == pytest.approx(printed, abs=5e-4)
    assert sum(chance * shape.start for chance, shape in law) == pytest.approx(0.945, abs=5e-4)
    assert all(not shape.stochastic[-1] for _, shape in law)
    costs = [expected_forwards(Geometric(3, 3, ratio)) for ratio in (0.3, 0.5, 0.7, 0.9999)]
    assert costs == pytest.approx([190.9, 177.4, 157.7, 124.0], abs=0.1)
    assert expected_forwards(Uniform(3, 3)) == pytest.approx(124.0, abs=1e-9)
    assert sum(chance for chance, _ in Uniform(3, 3).law(10, 0)) == pytest.approx(1, abs=1e-12)


def test_the_shifting_window_of_the_authors_code_visits_each_start_for_fifty_iterations() -> None:
    starts = [Shift(2, 4, 50, 1).law(10, iteration)[0][1].start for iteration in range(301)]
    assert starts == [start for start in range(6) for _ in range(50)] + [0]
    assert expected_forwards(Shift(2, 4, 50, 1), 300) == pytest.approx(73.5, abs=1e-9)


def test_flat_groups_cost_one_chain_each_and_never_sample_the_last_step() -> None:
    shape = Fixed(1, "all", 0).law(10, 0)[0][1]
    assert shape.stochastic == (True,) * 9 + (False,) and width("all", 10) == 9
    tree, asked = grown(shape, roots=27)
    assert (asked, len(tree.edges), len(tree.leaves)) == (270, 243, 27)
    assert count(shape, 27).update_forwards == 243
    assert grown(ode(10), roots=3)[1] == 30


@pytest.mark.parametrize(("start", "depth"), [(-1, 2), (0, 0), (7, 3), (0, 10)])
def test_a_window_that_would_reach_the_last_step_is_refused(start: int, depth: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        window(10, start, depth, 2)


@pytest.mark.parametrize(
    ("children", "sampled"), [((2, 1), (False, False)), ((0, 1), (True, False))]
)
def test_a_split_needs_a_sampled_step(children: tuple[int, ...], sampled: tuple[bool, ...]) -> None:
    with pytest.raises(ValueError, match="step 0"):
        Shape(children, sampled, 0)
