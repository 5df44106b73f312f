"""Whether a coupling leaves each sibling an exact draw."""

import math

import numpy as np
import torch

from treerl.check.finding import check
from treerl.engine import noise
from treerl.engine.coupling import Births, Coupling, siblings

Result = tuple[bool, str]
_FAMILIES = 4000
_DIMS = 3


@check("every sibling's noise must be standard normal by itself, whatever the others draw")
def exact(coupling: Coupling) -> Result:
    """Mean, covariance and fourth moment of each sibling alone are those of N(0, I)."""
    worst = 0.0
    for size in (2, 3):
        born = siblings(noise.children(noise.key(11), _FAMILIES), np.full(_FAMILIES, size))
        z = coupling.normal(born, (_DIMS,)).double().view(_FAMILIES, size, _DIMS)
        error = 1 / math.sqrt(_FAMILIES)
        covariance = torch.einsum("fsd,fse->sde", z, z) / _FAMILIES - torch.eye(_DIMS)
        scores = (
            float(z.mean(0).abs().max()) / error,
            float(covariance.abs().max()) / (math.sqrt(2) * error),
            float((z.pow(4).mean(0) - 3).abs().max()) / (math.sqrt(96) * error),
        )
        worst = max(worst, *scores)
    return worst < 5, f"largest deviation {worst:.1f} standard errors"


@check("draw by births.parent and births.number alone: an update asks for some siblings only")
def repeatable(coupling: Coupling) -> Result:
    """A child's noise is the same again, whichever of its siblings are asked for with it."""
    born = siblings(noise.children(noise.key(12), 5), np.array([2, 1, 3, 4, 2]))
    every = coupling.normal(born, (_DIMS,))
    some = np.array([9, 0, 4])
    part = Births(born.parent[some], born.number[some], born.count[some])
    gap = float((coupling.normal(part, (_DIMS,)) - every[some]).abs().max())
    shape = tuple(every.shape) == (12, _DIMS)
    return shape and gap < 1e-5, f"shape {tuple(every.shape)}, largest difference {gap:.1g}"
