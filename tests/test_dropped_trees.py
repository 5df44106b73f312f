"""A forest without some of its trees is a forest of the others, previews and all."""

from dataclasses import replace

import pytest
import torch
from forests import complete, ragged

from treerl.engine.tree import Tree


def with_previews(tree: Tree) -> Tree:
    """The same with an x̂₀ at its inner nodes, which says which node it is of."""
    inner = torch.arange(int(tree.leaves[0]))
    numbered = torch.arange(len(tree), dtype=torch.float64)[:, None].expand(-1, 2)
    return replace(tree, x=numbered, previewed=inner, x0=-numbered[inner])


@pytest.mark.parametrize("tree", [complete(2, 2, 3, trees=2), ragged(1), ragged(2)])
@pytest.mark.parametrize("gone", [(0,), (1,), (0, 2), ()])
def test_a_forest_without_some_trees_is_a_forest_of_the_others(
    tree: Tree, gone: tuple[int, ...]
) -> None:
    tree = with_previews(tree)
    roots = tree.roots()
    assert torch.equal(roots[: tree.sizes[0]], torch.arange(tree.sizes[0]))
    dropped = torch.tensor(gone, dtype=torch.int64)
    rest = tree.without(dropped)
    kept = (~torch.isin(roots, dropped)).nonzero().flatten()
    assert len(rest) == len(kept) == sum(rest.sizes)
    assert rest.sizes[0] == tree.sizes[0] - len(gone)
    for name in ("key", "step", "task", "stochastic"):
        assert torch.equal(getattr(rest, name), getattr(tree, name)[kept])
    inner = rest.parent != Tree.NO_PARENT
    assert torch.equal(kept[rest.parent[inner]], tree.parent[kept[inner]])
    assert torch.equal(rest.at(torch.arange(len(rest))).x[:, 0], kept.double())
    assert rest.x0 is not None and rest.previewed is not None
    assert torch.equal(-rest.x0[:, 0], kept[rest.previewed].double())
    assert len(rest.previewed) == len(rest) - len(rest.leaves)


def test_latents_that_were_not_kept_stay_unknown_when_other_trees_are_dropped() -> None:
    tree = complete(2, 2, 2, trees=1)  # nodes 0 1 | 2 3 4 5 | 6 ... 13
    kept = torch.arange(len(tree)) >= 2
    slot = torch.where(kept, torch.arange(len(tree)) - 2, Tree.DROPPED)
    numbered = torch.arange(2, len(tree), dtype=torch.float64)[:, None]
    rest = replace(tree, x=numbered, slot=slot).without(torch.tensor([0]))
    assert rest.at(rest.leaves).x[:, 0].tolist() == [10, 11, 12, 13] and len(rest.x) == 6
    with pytest.raises(ValueError, match="was not kept"):
        rest.at(torch.tensor([0]))
