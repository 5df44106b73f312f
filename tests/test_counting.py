"""Counting: what a rollout costs, counted on real rollouts, against the closed forms.

With b_i children at step i, of one tree: forwards F = Σ_i Π_{j<i} b_j, leaves L = Π_j b_j, and over
the stochastic steps alone, decisions Σ Π_{j<i} b_j and edges Σ Π_{j≤i} b_j.
"""

import pytest
import torch
from oracle import KERNELS, Neural, schedule
from plain import path, roots

from treerl.engine.branching import Fixed, ode, width, window
from treerl.engine.chunks import chunks
from treerl.engine.grow import grow
from treerl.engine.noise import generator
from treerl.engine.selection import All, Share
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec


def grown(spec: TreeSpec, trees: int = 1, tasks: int = 1, rows: int = 1) -> tuple[Tree, int]:
    """A rollout and how many rows went through the network."""
    env = Neural(KERNELS[0], schedule(spec.steps), (1,), width=1)
    tree = grow(env, roots(tasks, trees), spec, rows)
    return tree, env.forwards


def parents(tree: Tree, trained: torch.Tensor) -> int:
    """How many nodes have a trained edge."""
    return len(torch.unique(tree.parent[trained.nonzero().flatten()]))


@pytest.mark.parametrize(
    ("branching_factor", "depth", "forwards"),
    [(3, 3, (202, 176, 150, 124, 98, 72, 46)), (2, 4, (111, 96, 81, 66, 51, 36))],
    ids=["paper", "code"],
)
def test_a_window_costs_the_forwards_that_the_paper_and_its_code_do(
    branching_factor: int, depth: int, forwards: tuple[int, ...]
) -> None:
    decisions = sum(branching_factor**level for level in range(depth))
    leaves = branching_factor**depth
    assert (decisions, leaves) == {(3, 3): (13, 27), (2, 4): (15, 16)}[branching_factor, depth]
    for start, expected in enumerate(forwards):
        spec = window(10, start, depth, branching_factor)
        tree, counted = grown(spec)
        assert counted == expected == sum(tree.sizes[:-1]) == spec.forwards
        assert counted == start + decisions + (10 - start - depth) * leaves
        assert len(tree.leaves) == leaves == spec.leaves
        assert len(tree.edges) == branching_factor * decisions == spec.edges
        assert parents(tree, tree.stochastic) == decisions == spec.decisions
        # latents kept: both ends of every sampled edge (decisions + leaves), and the leaves
        assert len(tree.x) == decisions + 2 * leaves == spec.stored
        assert len(tree.x) == int((tree.slot != Tree.DROPPED).sum())


def any_spec(seed: int) -> TreeSpec:
    random = torch.Generator().manual_seed(seed)
    stochastic = tuple(bool(bit) for bit in torch.randint(0, 2, (6,), generator=random))
    drawn = torch.randint(1, 4, (6,), generator=random).tolist()
    children = [count if here else 1 for count, here in zip(drawn, stochastic, strict=True)]
    return TreeSpec(tuple(children), stochastic)


@pytest.mark.parametrize("seed", range(20))
def test_any_tree_spec_costs_the_general_closed_form(seed: int) -> None:
    spec = any_spec(seed)
    trees = 1 + seed % 3
    tasks = 1 + seed % 2
    count = trees * tasks
    tree, counted = grown(spec, trees, tasks)
    nodes = [count]
    for children in spec.children:
        nodes.append(nodes[-1] * children)
    assert tree.sizes == tuple(nodes) == tuple(count * width for width in spec.widths)
    assert counted == sum(nodes[:-1]) == count * spec.forwards
    sampled = [step for step in range(6) if spec.stochastic[step]]
    assert len(tree.edges) == sum(nodes[step + 1] for step in sampled) == count * spec.edges
    decisions = sum(nodes[step] for step in sampled)
    assert parents(tree, tree.stochastic) == decisions == count * spec.decisions
    assert len(tree.leaves) == nodes[-1] == count * spec.leaves
    assert len(tree.x) == count * spec.stored
    per_task = torch.full((tasks,), nodes[-1] // tasks)
    assert torch.equal(torch.bincount(tree.task[tree.leaves]), per_task)
    assert spec.start == (sampled[0] if sampled else 0)


@pytest.mark.parametrize("seed", range(20))
def test_the_kept_latents_are_both_ends_of_every_sampled_edge_and_the_leaves(seed: int) -> None:
    tree, _ = grown(any_spec(seed))
    ends = torch.unique(torch.cat([tree.edges, tree.parent[tree.edges], tree.leaves]))
    assert torch.equal((tree.slot != Tree.DROPPED).nonzero().flatten(), ends)


@pytest.mark.parametrize("seed", range(20))
def test_previews_are_kept_of_both_ends_of_every_sampled_edge_but_not_of_leaves(seed: int) -> None:
    spec = any_spec(seed)
    if not any(spec.stochastic):
        spec = window(6, 1, 2, 2)
    env = Neural(KERNELS[0], schedule(6), (1,), width=1)
    tree = grow(env, roots(2, 2), spec, 3, previews=True)
    ends = torch.unique(torch.cat([tree.edges, tree.parent[tree.edges]]))
    assert tree.previewed is not None and tree.x0 is not None
    assert torch.equal(tree.previewed, ends[ends < int(tree.leaves[0])])
    assert len(tree.x0) == len(tree.previewed) == 4 * spec.previews


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_selection_counts_the_nodes_and_edges_that_it_trains(share: float, seed: int) -> None:
    spec = any_spec(seed)
    tree, _ = grown(spec, trees=2)
    selection = Share(share)
    counts = []
    for draws in range(60):
        trained = selection(tree, torch.zeros(len(tree)), generator(draws))
        assert parents(tree, trained) == 2 * selection.decisions(spec)
        counts.append(float(trained.sum()) / 2)
    assert sum(counts) / 60 == pytest.approx(selection.edges(spec), rel=0.15)
    everything = All()(tree, torch.zeros(len(tree)), generator(0))
    assert parents(tree, everything) == 2 * All().decisions(spec)
    assert int(everything.sum()) == 2 * All().edges(spec)


def test_a_share_of_nodes_is_counted_exactly_rounded_down_and_never_none() -> None:
    # in floating point 0.7 · 10 is 7.000000000000001 and 0.29 · 100 is 28.999999999999996
    for share, steps, kept in ((0.6, 10, 6), (0.7, 10, 7), (0.29, 100, 29), (0.01, 5, 1)):
        chain = TreeSpec((1,) * steps, (True,) * steps)
        assert Share(share).decisions(chain) == kept
        assert Share(share).edges(chain) == pytest.approx(kept)
    assert Share(0.6).decisions(ode(10)) == 0 == Share(0.6).edges(ode(10))


def test_the_last_chunk_is_padded_and_its_padding_is_not_counted_as_nodes() -> None:
    spec = window(5, 1, 2, 3)
    plain, plain_forwards = grown(spec, rows=1)
    padded, padded_forwards = grown(spec, rows=4)
    assert plain.sizes == padded.sizes == (1, 1, 3, 9, 9, 9)
    assert plain_forwards == 23 and padded_forwards == 4 * (1 + 1 + 1 + 3 + 3)
    assert torch.allclose(plain.x, padded.x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("total", range(1, 20))
@pytest.mark.parametrize("rows", range(1, 8))
def test_chunks_cover_every_row_once_at_one_row_count(total: int, rows: int) -> None:
    every = torch.arange(total)
    parts = [(every[index], real) for index, real in chunks(total, rows)]
    assert all(len(index) == rows for index, _ in parts)
    assert torch.equal(torch.cat([index[:real] for index, real in parts]), torch.arange(total))
    assert all(int(index.max()) < total and int(index.min()) >= 0 for index, _ in parts)


def test_nodes_stand_level_by_level_parents_first_and_siblings_adjacent() -> None:
    spec = TreeSpec((2, 3, 1, 2, 1), (True, True, True, True, False))
    tree, _ = grown(spec, trees=2, tasks=2)
    inner = torch.arange(tree.sizes[0], len(tree))
    assert bool((tree.parent[: tree.sizes[0]] == Tree.NO_PARENT).all())
    assert bool((tree.parent[inner] < inner).all()) and bool((tree.parent[inner].diff() >= 0).all())
    assert torch.equal(tree.step[inner], tree.step[tree.parent[inner]] + 1)
    assert torch.equal(tree.task[inner], tree.task[tree.parent[inner]])
    for step in range(6):
        assert bool((tree.step[tree.level(step)] == step).all())
    assert [path(tree, int(leaf))[0] for leaf in tree.leaves[:12]] == [0] * 12
    assert path(tree, int(tree.leaves[-1])) == [3, 11, 35, 59, 107, len(tree) - 1]


@pytest.mark.parametrize(
    ("steps", "factor", "splits", "forwards", "edges", "nodes"),
    [(10, 3, (0, 1, 2), 202, 228, 229), (20, 2, (0, 3, 6, 9), 203, 218, 219)],
)
def test_fixed_splits_on_an_sde_cost_what_branch_grpo_counts(
    steps: int, factor: int, splits: tuple[int, ...], forwards: int, edges: int, nodes: int
) -> None:
    children = tuple(factor if step in splits else 1 for step in range(steps))
    spec = TreeSpec(children, (True,) * steps)
    assert (spec.forwards, spec.edges, sum(spec.widths)) == (forwards, edges, nodes)
    assert spec.stored == nodes and spec.decisions == forwards


def test_flat_groups_cost_one_chain_each_and_never_sample_the_last_step() -> None:
    spec = Fixed(1, "all", 0).distribution(10, 0)[0][1]
    assert spec.stochastic == (True,) * 9 + (False,) and width("all", 10) == 9
    tree, counted = grown(spec, trees=27)
    assert (counted, len(tree.edges), len(tree.leaves)) == (270, 243, 27)
    assert 27 * spec.decisions == 243
    assert grown(ode(10), trees=3)[1] == 30
