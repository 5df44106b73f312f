"""Philox4x32-10 gives the published words, and rows of sound draws in whatever blocks."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from treerl.engine import noise, philox

ONES = 0xFFFFFFFF
# Random123's kat_vectors: the four words of a counter, the two of a key, the four that come out
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
SIZES = (1, 2, 3, 4, 5, 64, 4099)


def keys(count: int, number: int = 5) -> noise.Keys:
    return noise.children(noise.key(number), count)


def words(counter: Tensor, key: Tensor) -> Tensor:
    """The words `[N, 4]` of counters `[N, 4]` under keys `[N]`."""
    even = counter[:, 0::2].T[..., None].contiguous()
    odd = counter[:, 1::2].T[..., None].contiguous()
    out = philox.philox(even, odd, torch.empty_like(even), key)
    return torch.stack([out[0][0], out[1][0], out[0][1], out[1][1]], 1)[..., 0]


def test_known_counters_and_keys_give_the_published_words() -> None:
    counter = torch.tensor([case[0] for case in KNOWN])
    halves = torch.tensor([case[1] for case in KNOWN])
    key = halves[:, 0] | (halves[:, 1] << 32)
    assert words(counter, key).tolist() == [list(case[2]) for case in KNOWN]


def test_a_row_is_the_generator_at_counters_from_zero() -> None:
    some = keys(3)
    bits = torch.from_numpy(some.view("int64"))
    counter = torch.zeros(5, 4, dtype=torch.int64)
    counter[:, 0] = torch.arange(5)
    drawn = noise.uniform(some, (4, 5), torch.float64)
    mixed = torch.from_numpy(noise.mix(some, noise._UNIFORM).view("int64"))
    for row in range(3):
        plain = words(counter, mixed[row].expand(5)).T >> 8
        # words 0 and 2 of the counters come first, then words 1 and 3
        assert torch.equal(drawn[row], plain[[0, 2, 1, 3]] / 2**24)
        plain = words(counter, bits[row].expand(5)).T.double()
        radius = (-2 * ((plain[0::2] + 0.5) / 2**32).log()).sqrt()
        angle = 2 * math.pi * plain[1::2] / 2**32
        expected = torch.cat([radius * angle.cos(), radius * angle.sin()])
        normal = noise.normal(some, (4, 5), torch.float64)[row]
        torch.testing.assert_close(normal, expected, atol=3e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("draw", [noise.normal, noise.uniform])
def test_a_row_is_the_same_alone_among_others_and_in_any_blocks(
    draw: Callable[..., Tensor], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = keys(37)
    whole = draw(some, (size,), torch.float32)
    order = torch.randperm(37, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(some[order.numpy()], (size,), torch.float32), whole[order])
    for row in (0, 17, 36):
        assert torch.equal(draw(some[row : row + 1], (size,), torch.float32)[0], whole[row])
    for block in (1, 7, 64, 1000):
        if size * 37 <= 4000 * block:  # thousands of blocks of one counter take their time
            monkeypatch.setattr(philox, "_CPU_BLOCK", block)
            assert torch.equal(draw(some, (size,), torch.float32), whole)


def test_no_rows_and_no_numbers_are_no_draws() -> None:
    for draw in (noise.normal, noise.uniform):
        assert draw(keys(0), (3, 2), torch.float32).shape == (0, 3, 2)
        assert draw(keys(3), (0, 2), torch.float32).shape == (3, 0, 2)


@pytest.mark.parametrize("shape", [(400_000, 2), (200, 4000), (1, 800_000)], ids=str)
def test_rows_long_and_short_are_standard_normal(shape: tuple[int, int]) -> None:
    z = noise.normal(keys(shape[0]), shape[1:], torch.float64).flatten()
    count = len(z)
    # E z, z², z³, z⁴ and the variances of these powers
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = math.sqrt(variance / count)
        assert abs(float(z.pow(power).mean()) - mean) < 4.5 * error
    for edge in (3.0, 4.0):
        expected = count * math.erfc(edge / math.sqrt(2))
        assert abs(int((z.abs() > edge).sum()) - expected) < 4.5 * math.sqrt(expected)
    assert bool(torch.isfinite(z).all()) and float(z.abs().max()) < 6.8
    # Kolmogorov and Smirnov's distance, beyond this once in a million
    below = torch.special.ndtr(z.sort().values)
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    distance = max(float((below - steps[:-1]).max()), float((steps[1:] - below).max()))
    assert distance < 2.7 / math.sqrt(count)


@pytest.mark.parametrize("power", [1, 2])
def test_siblings_cousins_and_the_numbers_of_a_row_know_nothing_of_each_other(power: int) -> None:
    families = 100_000
    parents = keys(families)
    children = noise.normal(noise.children(parents, 2), (5,), torch.float64)
    own = noise.normal(parents, (5,), torch.float64)
    together = torch.cat([children.view(families, 10), own, own.roll(1, 0)], 1).pow(power)
    table = torch.corrcoef(together.T).fill_diagonal_(0)
    assert float(table.abs().max()) < 5 / math.sqrt(families)


def test_keys_that_differ_in_one_bit_draw_apart() -> None:
    base: noise.Keys = noise.key(9) ^ (np.uint64(1) << np.arange(64, dtype=np.uint64))
    table = torch.corrcoef(noise.normal(base, (10_000,), torch.float64)).fill_diagonal_(0)
    assert float(table.abs().max()) < 5 / math.sqrt(10_000)


def test_words_at_both_ends_give_finite_draws() -> None:
    ends = torch.tensor([0, 1, 2**31, ONES - 1, ONES]).repeat(2, 1, 1)
    into = torch.empty(1, 2, 2, 5)
    philox._box_muller(into, ends, ends)
    assert bool(torch.isfinite(into).all())
    assert float(into.abs().max()) == pytest.approx(math.sqrt(2 * 33 * math.log(2)), rel=1e-6)
    philox._fractions(into, ends, ends)
    assert float(into.min()) == 0 and float(into.max()) == 1 - 2**-24


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_another_device_draws_the_same_up_to_rounding() -> None:
    some = keys(9)
    for draw, error in ((noise.normal, 4e-6), (noise.uniform, 0)):
        here = draw(some, (70_001,), torch.float32)
        there = draw(some, (70_001,), torch.float32, "cuda")
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here, atol=error, rtol=0)
