"""The tree gradient of the linear world: its expectation and its variance, without a draw.

The reward is the sum of a sample's D numbers. Along it a leaf scores gain · w, up to a constant,
where w `[N]` holds the standard normal of every node: a root's start, the noise of the edge into
any other. The tree gradient of step t is the mean of A_e z_e over the step's edges, and A is linear
in w, so in units of the exact gradient it is w'Hw along the reward and y'Hw in each direction
across it, y being what w is there. Isserlis' theorem gives the moments of both.
"""

import math
from dataclasses import dataclass

import torch
from oracle import Steps
from torch import Tensor

from treerl.engine.baseline import (
    Baseline,
    Depth,
    LeaveSubtreeOut,
    ParentGain,
    Prompt,
    Siblings,
    StepGain,
)
from treerl.engine.coupling import Correlated, Coupling, Mirrored, Orthogonal, Rotated
from treerl.engine.tree import Tree


@dataclass(frozen=True)
class Moments:
    """The gradient of a step, in units of the exact one."""

    factor: float  # its mean: 1 is unbiased; across the reward the mean is 0
    along: float  # variance in the reward's direction
    across: float  # variance in a direction across it, a mean over the D - 1 of them
    origins: tuple[float, float, float]  # of `across`: noise before the step, of it, and after it


@dataclass(frozen=True)
class Law:
    """The second and fourth moments of the nodes' noise, the same for every dimension."""

    covariance: Tensor  # [N, N] of w, and of y
    twist: Tensor  # [N, N] covariance of y and w in the one direction that turns into the reward's
    right: Tensor  # [N, N] bool, siblings whose directions are at right angles


def moments(tree: Tree, steps: Steps, baseline: Baseline, law: Law, step: int) -> Moments:
    """The moments of the gradient of the edges that leave `step`, for one task's trees."""
    h = form(tree, steps, baseline, step)
    before = tree.step <= step
    own = tree.step == step + 1
    origins = [across(h * part, law, tree.dims) for part in (before, own, ~before & ~own)]
    return Moments(
        factor=float((h * law.covariance).sum()),
        along=along(h, law, tree.dims),
        across=across(h, law, tree.dims),
        origins=(origins[0], origins[1], origins[2]),
    )


def along(h: Tensor, law: Law, dims: int) -> float:
    """Var[w'Hw] = 2 tr(MΣMΣ), M the symmetric part of H, and what right angles add."""
    m = (h + h.T) / 2
    turned = m @ law.covariance
    # siblings at right angles: E[w_i² w_j²] = D/(D+2), where the Gaussian has 1
    excess = -2 / (dims + 2)
    pairs = m.diag()[:, None] * m.diag() + 2 * m.square()
    return float(2 * (turned * turned.T).sum() + excess * pairs[law.right].sum())


def across(h: Tensor, law: Law, dims: int) -> float:
    """Var[y'Hw], a mean over the D - 1 directions of y."""
    plain = (law.covariance @ h @ law.covariance * h).sum()
    twisted = h @ law.twist.T
    plain += (twisted * twisted.T).sum() / (dims - 1)
    # two rows u, v of a Haar frame of k columns: E[u_i² v_j²] and E[u_i u_j v_i v_j]
    both = 2 / ((dims - 1) * (dims + 2))
    mixed = -dims / ((dims - 1) * (dims + 2))
    pairs = h.diag()[:, None] * h.diag() + h * h.T
    return float(plain + (both * h.square() + mixed * pairs)[law.right].sum())


def form(
    tree: Tree, steps: Steps, baseline: Baseline, step: int, weight: Tensor | None = None
) -> Tensor:
    """H `[..., N, N]`: row e is the advantage of edge e over w, by the edges' number and gain.

    `weight` `[..., N]` is each node's share in its parent's value, an equal one by default.
    """
    gain = gains(tree, steps)
    if weight is None:
        weight = 1 / _same(tree.parent).count_nonzero(1).double()
    reached = below(tree, weight)
    value = reached[..., tree.leaves] @ (below(tree)[:, tree.leaves].T * gain)
    share = reached[..., : tree.sizes[0], :].mean(-2)
    here = tree.step == step + 1
    credit = (value - centre(tree, value, share, baseline)) * here[:, None]
    return credit / (int(here.sum()) * gain[here][0])


def gains(tree: Tree, steps: Steps) -> Tensor:
    """What a unit of each node's noise adds to the leaves below it `[N]`; `steps` are moves."""
    reach = [math.prod(steps.a)]
    for k, s in enumerate(steps.s):
        reach.append(s * math.prod(steps.a[k + 1 :]))
    level = torch.arange(len(tree.sizes)).repeat_interleave(torch.tensor(tree.sizes))
    return torch.tensor(reach, dtype=torch.float64)[level]


def below(tree: Tree, weight: Tensor | None = None) -> Tensor:
    """By how much a node (column) counts in the row's, 0 where it does not hang below it.

    That is `[..., N, N]`, the product of the weights on the way, 1 by default.
    """
    weight = torch.ones(len(tree), dtype=torch.float64) if weight is None else weight
    reached = torch.eye(len(tree), dtype=torch.float64).repeat(*weight.shape[:-1], 1, 1)
    for node in range(len(tree) - 1, tree.sizes[0] - 1, -1):
        reached[..., int(tree.parent[node]), :] += weight[..., [node]] * reached[..., node, :]
    return reached


def centre(tree: Tree, value: Tensor, share: Tensor, baseline: Baseline) -> Tensor:
    """What the baseline compares each node's value with, as a function of w `[..., N, N]`."""
    share = share[..., None]
    mean = (share * value)[..., tree.leaves, :].sum(-2, keepdim=True)
    roots = tree.parent == Tree.NO_PARENT
    parent = torch.where(roots, torch.arange(len(tree)), tree.parent)
    level = _same(tree.step)
    if isinstance(baseline, Prompt):
        return mean
    if isinstance(baseline, Depth):
        return level @ value
    if isinstance(baseline, Siblings):
        return torch.where(roots[:, None], value, _same(tree.parent) @ value)
    if isinstance(baseline, ParentGain):
        return value[..., parent, :]
    if isinstance(baseline, StepGain):
        before = value[..., parent, :]
        return before + level @ (value - before)
    if isinstance(baseline, LeaveSubtreeOut):
        rest = 1 - share
        outside = (mean - share * value) / rest.clamp(min=1e-12)
        return torch.where(rest < 1e-12, value, outside)
    raise NotImplementedError(type(baseline).__name__)


def _same(label: Tensor) -> Tensor:
    """The matrix that takes means over nodes of one label."""
    equal = (label[:, None] == label).double()
    return equal / equal.sum(1, keepdim=True)


def law(tree: Tree, coupling: Coupling, shared_noise: bool = False) -> Law:
    """The law of a task's trees whose siblings are coupled, of an even number of dimensions."""
    covariance = torch.eye(len(tree), dtype=torch.float64)
    twist = torch.zeros_like(covariance)
    right = torch.zeros_like(covariance, dtype=torch.bool)
    if shared_noise:
        covariance[: tree.sizes[0], : tree.sizes[0]] = 1
    for node in sorted(set(tree.parent[tree.edges].tolist())):
        family = (tree.parent == node).nonzero().flatten()
        block = (family[:, None], family)
        angle = angles(coupling, len(family))
        covariance[block] = correlation(coupling, len(family))
        twist[block] = (angle[:, None] - angle).sin()
        if isinstance(coupling, Orthogonal):  # by D siblings at a time, as more do not fit
            together = torch.arange(len(family)) // tree.dims
            right[block] = together[:, None] == together
    return Law(covariance, twist, right.fill_diagonal_(False))


def angles(coupling: Coupling, count: int) -> Tensor:
    """By how much each of `count` siblings is turned; 0 but for `Rotated`."""
    turned = 2 * math.pi / count if isinstance(coupling, Rotated) else 0.0
    return turned * torch.arange(count, dtype=torch.float64)


def correlation(coupling: Coupling, count: int) -> Tensor:
    """How one dimension of `count` siblings' noise correlates `[k, k]`."""
    number = torch.arange(count)
    if isinstance(coupling, Mirrored):
        sign = (1 - 2 * (number % 2)).double()
        return sign[:, None] * sign * (number[:, None] // 2 == number // 2)
    if isinstance(coupling, Rotated):
        angle = angles(coupling, count)
        return (angle[:, None] - angle).cos()
    eye = torch.eye(count, dtype=torch.float64)
    if isinstance(coupling, Correlated):
        shared = 1 / (1 + coupling.spread**2)
        return shared + (1 - shared) * eye
    return eye
