"""One forest of the trees that several processes grew: everything but the latents."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from treerl.engine.peers import Peers
from treerl.engine.tree import Tree

_FIELDS = ("task", "parent", "log_prob", "stochastic", "step", "key")  # each [N]


def merge(
    tree: Tree, columns: Mapping[str, Tensor], peers: Peers
) -> tuple[Tree, dict[str, Tensor]]:
    """The forest of all processes, the same in each, and further `columns` `[N, ...]` of it.

    Every level holds the nodes of rank 0, then those of rank 1, and so on: what one process would
    have grown of the roots in that order. Latents stay where they are: the slot of a node of
    another process is DROPPED, and `previewed` names this process's own nodes.
    """
    if peers.size == 1:
        return tree, dict(columns)
    packed = {name: getattr(tree, name) for name in _FIELDS}
    packed |= {f"column.{name}": column for name, column in columns.items()}
    brought = peers.gather({"sizes": torch.tensor(tree.sizes), **packed})
    sizes = torch.stack([part["sizes"] for part in brought])  # [ranks, T + 1]
    places = _places(sizes)
    for part, place in zip(brought, places, strict=True):
        inner = part["parent"] != Tree.NO_PARENT
        part["parent"] = torch.where(inner, place[part["parent"].clamp(min=0)], Tree.NO_PARENT)
    fields = {name: _spread(brought, places, name) for name in packed}
    mine = places[peers.rank]
    slot = torch.full((int(sizes.sum()),), Tree.DROPPED)
    slot[mine] = tree.slot
    gathered: dict[str, Any] = {name: fields[name] for name in _FIELDS}
    whole = replace(
        tree,
        slot=slot,
        sizes=tuple(sizes.sum(0).tolist()),
        previewed=None if tree.previewed is None else mine[tree.previewed],
        **gathered,
    )
    return whole, {name: fields[f"column.{name}"] for name in columns}


def _places(sizes: Tensor) -> list[Tensor]:
    """Where the nodes of each rank stand in the merged forest, of level sizes `[ranks, T + 1]`.

    Sizes (1, 2) and (1, 3) give places (0, 2 3) and (1, 4 5 6).
    """
    level = sizes.sum(0).cumsum(0) - sizes.sum(0)  # the first node of each level
    first = level + sizes.cumsum(0) - sizes  # ... and of each rank in it
    places = []
    for starts, counts in zip(first, sizes, strict=True):
        inside = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(
            counts
        )
        places.append(starts.repeat_interleave(counts) + inside)
    return places


def _spread(brought: Sequence[Mapping[str, Tensor]], places: list[Tensor], name: str) -> Tensor:
    first = brought[0][name]
    whole = first.new_empty(sum(len(place) for place in places), *first.shape[1:])
    for part, place in zip(brought, places, strict=True):
        whole[place] = part[name]
    return whole
