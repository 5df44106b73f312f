"""How the noise of siblings hangs together: each child alone stays an exact sample of the policy.

So every edge keeps its density, its ratio and its clip; what changes is how much the contrast
between siblings varies.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Gt, Le
from numpy.typing import NDArray
from torch import Tensor

from treerl.engine import noise
from treerl.engine.component import Component
from treerl.engine.policy import Draws

_SHARED = 2**34  # a child number that no node has: what all siblings draw from


@dataclass(frozen=True)
class Births:
    """M children by where they come from: which child of which parent, and of how many."""

    parent: noise.Keys  # [M] keys of the parents
    number: NDArray[np.int64]  # [M] 0, 1, ... among its siblings
    count: NDArray[np.int64]  # [M] children that its parent has
    device: torch.device | str = "cpu"  # where their noise is drawn

    @property
    def keys(self) -> noise.Keys:
        """The children's own keys `[M]`."""
        return noise.mix(self.parent, self.number.astype(np.uint64))

    def take(self, index: slice) -> "Births":
        """The children of a slice."""
        return Births(self.parent[index], self.number[index], self.count[index], self.device)


def siblings(
    parents: noise.Keys, counts: NDArray[np.int64], device: torch.device | str = "cpu"
) -> Births:
    """All children of `[P]` parents that have `[P]` children each, siblings adjacent."""
    parent = np.repeat(parents, counts)
    return Births(parent, noise.numbers(counts), np.repeat(counts, counts), device)


class Coupling(Component, ABC):
    """Draws the noise of siblings together; a plug-in is a dataclass of its parameters.

    Every child's noise must be standard normal by itself, whatever its siblings draw: only then is
    the density of its edge the policy's.
    """

    # whether E[z_i f(z_j)] = 0 for siblings i ≠ j: what a baseline of the other leaves relies on
    uncorrelated: ClassVar[bool] = True

    @abstractmethod
    def normal(self, births: Births, shape: Sequence[int]) -> Tensor:
        """Standard normal noise `[M, *shape]`, float32, a function of `births` alone.

        Draw it on `births.device`, to save its way there.
        """

    def uniform(self, births: Births, shape: Sequence[int]) -> Tensor:
        """Noise uniform in [0, 1) `[M, *shape]`, for policies that are not Gaussian; likewise."""
        below: Tensor = torch.special.ndtr(self.normal(births, shape))
        return below.clamp(max=1 - 2**-24)


@dataclass(frozen=True)
class CoupledDraws(Draws):
    """The random numbers of M edges under a coupling."""

    coupling: Coupling
    births: Births  # M

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return self.coupling.normal(self.births, shape).to(self.births.device, dtype)

    def uniform(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return self.coupling.uniform(self.births, shape).to(self.births.device, dtype)


@dataclass(frozen=True)
class Independent(Coupling):
    """Siblings draw on their own."""

    def normal(self, births: Births, shape: Sequence[int]) -> Tensor:
        return noise.normal(births.keys, shape, torch.float32, births.device)

    def uniform(self, births: Births, shape: Sequence[int]) -> Tensor:
        return noise.uniform(births.keys, shape, torch.float32, births.device)


@dataclass(frozen=True)
class Mirrored(Coupling):
    """Siblings in pairs, +z and -z: antithetic sampling. The last of an odd number is alone.

    What is even in z cancels between the two. The mirror has the leaf's own noise, so with the
    prompt's mean as baseline and uniform weights the expected gradient of edges that split is exact
    (independent siblings learn 1 - m/n of it).
    """

    uncorrelated: ClassVar[bool] = False

    def normal(self, births: Births, shape: Sequence[int]) -> Tensor:
        odd = births.number % 2
        first = births.number - odd
        z = _drawn_once(births, noise.mix(births.parent, first.astype(np.uint64)), shape)
        sign = torch.from_numpy(1 - 2 * odd).to(z)
        return z * sign.view(-1, *(1,) * len(shape))


@dataclass(frozen=True)
class Rotated(Coupling):
    """Any number of siblings, their noise summing to zero: `Mirrored` for two, and beyond.

    Dimensions go in pairs, and sibling j of k has the first one's draws turned by 2πj/k in each
    plane: every one alone is an exact draw, for a normal plane looks the same from all sides. The
    last of an odd number of dimensions, and an only child, draw on their own.
    """

    uncorrelated: ClassVar[bool] = False

    def normal(self, births: Births, shape: Sequence[int]) -> Tensor:
        dims = math.prod(shape)
        first = _drawn_once(births, noise.mix(births.parent, 0), (dims,))
        z = first.clone()
        planes = dims // 2
        if dims % 2:
            alone = noise.normal(births.keys, (dims,), torch.float32, births.device)
            z[:, -1] = alone[:, -1]
        a = first[:, :planes]
        b = first[:, planes : 2 * planes]
        angle = torch.from_numpy(2 * math.pi * births.number / births.count).to(z)[:, None]
        z[:, :planes] = a * angle.cos() - b * angle.sin()
        z[:, planes : 2 * planes] = a * angle.sin() + b * angle.cos()
        return z.view(-1, *shape)


@dataclass(frozen=True)
class Orthogonal(Coupling):
    """Siblings in directions at right angles, up to D of them; their lengths are independent.

    The directions are those of a Haar-distributed frame, so each alone is uniform on the sphere.
    """

    def normal(self, births: Births, shape: Sequence[int]) -> Tensor:
        dims = math.prod(shape)
        z = torch.empty(len(births.number), dims, device=births.device)
        for count in np.unique(births.count).tolist():
            rows = np.flatnonzero(births.count == count)
            parents, family = np.unique(births.parent[rows], return_inverse=True)
            whole = siblings(parents, np.full(len(parents), count))
            drawn = noise.normal(whole.keys, (dims,), torch.float64, births.device)
            drawn = drawn.view(-1, count, dims)
            blocks = torch.split(drawn, dims, dim=1)
            turned = torch.cat([_right_angles(block) for block in blocks], 1)
            z[rows] = turned[family, births.number[rows]].float()
        return z.view(-1, *shape)


@dataclass(frozen=True)
class Correlated(Coupling):
    """BranchGRPO's branch noise (arXiv 2509.06040): (ξ₀ + s η) / √(1 + s²), ξ₀ shared by siblings.

    Siblings correlate by 1 / (1 + s²). Its authors' code draws s · N(0, I) and scores it at std 1,
    which biases every ratio; this is the formula that they print.
    """

    uncorrelated: ClassVar[bool] = False

    spread: Annotated[float, Gt(0), Le(1000)] = 4.0  # s

    def normal(self, births: Births, shape: Sequence[int]) -> Tensor:
        shared = _drawn_once(births, noise.mix(births.parent, _SHARED), shape)
        alone = noise.normal(births.keys, shape, torch.float32, births.device)
        return (shared + self.spread * alone) / math.sqrt(1 + self.spread**2)


def _drawn_once(births: Births, keys: noise.Keys, shape: Sequence[int]) -> Tensor:
    """Normal draws `[M, *shape]` of keys of which many are equal."""
    different, place = np.unique(keys, return_inverse=True)
    drawn = noise.normal(different, shape, torch.float32, births.device)
    return drawn[torch.from_numpy(place).to(drawn.device)]


def _right_angles(z: Tensor) -> Tensor:
    """`[P, k, D]` draws, k <= D, turned to right angles within each P; lengths stay."""
    axes, triangle = torch.linalg.qr(z.mT)
    # QR leaves the sign of an axis open: the draws' own makes the frame Haar-distributed
    sign = triangle.diagonal(dim1=-2, dim2=-1).sign()
    turned: Tensor = (axes * sign[:, None]).mT * z.norm(dim=2, keepdim=True)
    return turned
