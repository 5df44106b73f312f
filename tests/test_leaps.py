"""Leaps along the exact path: of the order that they say, whatever the network predicts."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from treerl.engine.kernel import ODE
from treerl.engine.schedule import Diffusion, Flow, Schedule

MEAN, SPREAD = 0.4, 0.5


def path_of(kind: str, steps: int) -> Schedule:
    """A smooth schedule of a flow, or of a network that predicts the noise or v."""
    if kind == "flow":
        return Flow.linear(steps)
    bar = torch.linspace(0.05, 0.999, steps + 1, dtype=torch.float64)
    return Diffusion(bar[:-1], bar, "noise" if kind == "noise" else "v")


def prediction(path: Schedule, x: Tensor, step: int) -> Tensor:
    """The exact prediction for data N(MEAN, SPREAD²)."""
    signal, noise = path.signal[step], path.noise[step]
    variance = signal**2 * SPREAD**2 + noise**2
    eps = noise * (x - signal * MEAN) / variance
    x0 = (x - noise * eps) / signal if float(signal) > 0 else torch.full_like(x, MEAN)
    if isinstance(path, Flow):
        return eps - x0
    return eps if path.predicts == "noise" else signal * eps - noise * x0  # type: ignore[attr-defined]


def walked(path: Schedule, order: int, begin: int) -> float:
    """The end of the deterministic path from a fixed place at level `begin`, relative to exact.

    The exact path keeps the standardised distance from the mean.
    """

    def standard(x: Tensor, step: int) -> Tensor:
        signal, noise = path.signal[step], path.noise[step]
        return (x - signal * MEAN) / (signal**2 * SPREAD**2 + noise**2).sqrt()

    signal, noise = path.signal[begin], path.noise[begin]
    x = signal * MEAN + 1.3 * (signal**2 * SPREAD**2 + noise**2).sqrt()
    x = x.view(1, 1)
    before = None
    for step in range(begin, path.steps):
        now = torch.tensor([step])
        slope = path.slope(x, prediction(path, x, step), now)
        straight = slope
        if order == 2 and before is not None:
            straight = slope + path.lookback(now, 1, 1) * (slope - before)
        x = path.move(x, straight, now, 1)
        before = slope
    return abs(float(standard(x, path.steps)) - 1.3)


@pytest.mark.parametrize("kind", ["flow", "noise", "v"])
@pytest.mark.parametrize("order", [1, 2])
def test_the_error_of_a_tail_falls_with_the_order_of_its_solver(kind: str, order: int) -> None:
    errors = []
    for steps in (40, 80, 160):
        path = path_of(kind, steps)
        errors.append(walked(path, order, steps // 4))
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(abs(slope - order) < 0.25 for slope in slopes), (errors, slopes)


@pytest.mark.parametrize("kind", ["flow", "noise", "v"])
def test_a_leap_over_one_step_is_the_deterministic_kernels(kind: str) -> None:
    path = path_of(kind, 8)
    table = ODE().coefficients(path)
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    predicted = torch.sin(x)
    step = torch.arange(1, 8)
    mean = table.gaussian(x, predicted, step).mean
    moved = path.move(x, path.slope(x, predicted, step), step, 1)
    torch.testing.assert_close(moved, mean)


def test_a_straight_path_is_followed_exactly_over_any_stride() -> None:
    path = Flow.linear(10)
    x0 = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    eps = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    step = torch.full((4,), 3)
    x = path.noised(x0, eps, step)
    torch.testing.assert_close(path.move(x, eps - x0, step, 7), x0)
