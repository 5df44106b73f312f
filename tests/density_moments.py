"""What weighting siblings by their density does to the tree gradient, by quadrature.

A density knows a sibling's noise by its length alone, and lengths know nothing of directions. So
given all lengths the weights are numbers, the gradient is the quadratic form of gradient_moments.py
in random directions, and what is left is an integral over lengths: |z|² / 2 ~ Gamma(D / 2).
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from gradient_moments import correlation, form
from oracle import Steps
from torch import Tensor

from treerl.engine import weighting as weightings
from treerl.engine.baseline import (
    Baseline,
    Depth,
    LeaveSubtreeOut,
    ParentGain,
    Prompt,
    Siblings,
    StepGain,
)
from treerl.engine.coupling import Correlated, Coupling, Independent, Mirrored, Orthogonal, Rotated
from treerl.engine.tree import Tree
from treerl.engine.weighting import Weighting

_POINTS = 20_000  # of the quadrature, at a time


def moments(
    tree: Tree,
    steps: Steps,
    weighting: Weighting,
    baseline: Baseline,
    step: int,
    right_angles: bool = False,
    order: int = 10,
) -> tuple[float, float, float]:
    """The mean, and the variances along and across, of one tree whose siblings' lengths are free.

    They are independent or, at `right_angles`, orthogonal.
    """
    dims = tree.dims
    siblings = (tree.parent[:, None] == tree.parent) & ~torch.eye(len(tree)).bool()
    right = siblings & tree.stochastic[:, None] & tree.stochastic & right_angles
    total = torch.zeros(3, dtype=torch.float64)
    for square, mass in _lengths(tree, order):
        h = form(tree, steps, baseline, step, _weights(tree, weighting, square))
        s = square / dims  # second moment of each of the dimensions
        scaled = h * s[:, :, None].sqrt() * s[:, None, :].sqrt()
        own = scaled.diagonal(dim1=1, dim2=2)
        mixed = own[:, :, None] * own[:, None, :] + scaled * scaled.mT
        every = scaled.square()
        # moments of a frame's rows: 1 and 0 between free directions, and these at right angles
        same = torch.where(right, dims / (dims + 2), 1.0).fill_diagonal_(0)
        two = (dims + 1) * dims / ((dims - 1) * (dims + 2))
        rows = torch.where(right, two, 1.0).fill_diagonal_(0)
        cross = torch.where(right, -dims / ((dims - 1) * (dims + 2)), 0.0)
        alone = own.square().sum(1) * dims / (dims + 2)
        along = ((mixed + every) * same).sum((1, 2)) + 3 * alone
        across = (every * rows + mixed * cross).sum((1, 2)) + alone
        total += (torch.stack([own.sum(1), along, across]) * mass).sum(1)
    mean = float(total[0])
    return mean, float(total[1]) - mean**2, float(total[2])


def equal(weighting: Weighting, coupling: Coupling, k: int) -> bool:
    """Whether k siblings weigh the same, always; of an even number of dimensions."""
    if isinstance(weighting, weightings.Uniform):
        return True
    # mirrored and rotated noise is as long, and so as dense, for every sibling
    pairs = isinstance(coupling, Mirrored) and k % 2 == 0
    return not isinstance(weighting, weightings.SoftmaxValue) and (
        pairs or isinstance(coupling, Rotated)
    )


def factor(
    weighting: Weighting, baseline: Baseline, coupling: Coupling, k: int, parents: int, dims: int
) -> float | None:
    """What an edge of `parents` families of k learns; None where there is no closed form."""
    plain = float(correlation(coupling, k).sum()) / k**2
    # means of values that are not weighed move with a node's own noise as they always do
    if isinstance(baseline, Siblings):
        return 1 - plain
    if isinstance(baseline, Depth):
        return 1 - plain / parents
    by_value = isinstance(weighting, weightings.SoftmaxValue)
    if isinstance(baseline, LeaveSubtreeOut):
        free = isinstance(coupling, Independent | Orthogonal) and not by_value
        return 1.0 if free else None
    own = _own_share(weighting, coupling, k, dims)
    if own is None:
        return None
    if isinstance(baseline, Prompt):
        # weights by value further up see this family's mean, and so its noise
        return None if by_value and own > 0 and parents > 1 else 1 - own / parents
    if isinstance(baseline, ParentGain):
        return 1 - own
    if isinstance(baseline, StepGain):
        return 1 - own - (plain - own) / parents
    raise NotImplementedError(type(baseline).__name__)


def _own_share(weighting: Weighting, coupling: Coupling, k: int, dims: int) -> float | None:
    """Σ_ij E[w_j z_i z_j] / k of a family: what its mean has of an edge's own noise."""
    plain = float(correlation(coupling, k).sum()) / k**2
    if plain < 1e-12:
        return 0.0  # the family's noise sums to zero: nothing that siblings share can know it
    if isinstance(weighting, weightings.SoftmaxValue):
        # where the family's mean knows nothing of its differences, it knows nothing of the weights
        return plain if isinstance(coupling, Independent | Correlated) else None
    if isinstance(coupling, Correlated):
        return None  # the lengths hang together
    pairs = isinstance(coupling, Mirrored)
    which = [i // 2 if pairs else i for i in range(k)]
    square, mass = _grid(dims, which[-1] + 1, 40)
    square = square[:, which]
    weight = _weigh(weighting, square, dims)
    mean = (weight[:, -1] * square[:, -1] * mass).sum() / dims
    return float(mean) / (k if pairs else 1)


def _lengths(tree: Tree, order: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Squared lengths of all nodes' noise `[Q, N]` with their masses `[Q]`, in parts."""
    free = tree.edges
    square, mass = _grid(tree.dims, len(free), order)
    for part in torch.split(torch.arange(len(mass)), _POINTS):
        every = torch.full((len(part), len(tree)), float(tree.dims), dtype=torch.float64)
        every[:, free] = square[part]
        yield every, mass[part]


def _grid(dims: int, count: int, order: int) -> tuple[Tensor, Tensor]:
    """Nodes `[Q, count]` and masses `[Q]` for independent |z|², Q = order^count; D is even."""
    point, mass = np.polynomial.laguerre.laggauss(order)
    mass = mass * point ** (dims // 2 - 1) / math.gamma(dims / 2)
    axes = [torch.from_numpy(2 * point)] * count
    masses = [torch.from_numpy(mass)] * count
    nodes = torch.cartesian_prod(*axes).view(-1, count)
    return nodes, torch.cartesian_prod(*masses).view(-1, count).prod(1)


def _weights(tree: Tree, weighting: Weighting, square: Tensor) -> Tensor:
    """The weight of every node `[Q, N]` in its parent's value."""
    weight = torch.ones_like(square)
    for node in sorted(set(tree.parent[tree.edges].tolist())):
        family = (tree.parent == node).nonzero().flatten()
        if len(family) > 1:
            weight[:, family] = _weigh(weighting, square[:, family], tree.dims)
    return weight


def _weigh(weighting: Weighting, square: Tensor, dims: int) -> Tensor:
    """The weights `[Q, k]` of siblings whose noise has these squared lengths."""
    return weighting(
        weightings.Siblings(
            value=torch.zeros_like(square),
            log_prob=-square / (2 * dims),
            dims=dims,
            step=0,
            steps=1,
            depth=1,
            iteration=0,
        )
    )
