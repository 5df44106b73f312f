"""Fixtures of the whole suite."""

import os
from collections.abc import Sequence

# before torch is imported: two spinning threads on a busy machine are ten times slower than one
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from torch import Tensor

from treerl.engine import noise


@pytest.fixture
def fast_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws from one generator instead of one for each key: for statistics over 1e5 trees,
    never for single trees."""
    stream = torch.Generator().manual_seed(0)

    def normal(
        keys: noise.Keys,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        return torch.randn(len(keys), *shape, generator=stream, dtype=torch.float64).to(
            device, dtype
        )

    monkeypatch.setattr(noise, "normal", normal)
