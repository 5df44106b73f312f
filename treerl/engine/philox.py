"""Philox4x32-10, a generator without a state, in torch's integers: the same words on any device.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Four words
of 32 bits are a function of a key and a counter: here a row has a key, and its numbers count.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# tensors, since torch takes twice as long over Python's numbers; from the CPU they go everywhere
_EVEN_FACTOR = torch.tensor(0xD2511F53)
_ODD_FACTOR = torch.tensor(0xCD9E8D57)
_LOW = torch.tensor(0xFFFFFFFF)
_WORD = torch.tensor(32)  # bits
_ROUNDS = torch.arange(10).view(-1, 1, 1, 1)
# what the two halves of a key grow by from round to round
_KEY_STEP = torch.tensor([0x9E3779B9, 0xBB67AE85]).view(2, 1, 1)
# Counters at a time, 48 bytes of work each: on a CPU they are to lie in its cache, elsewhere they
# are to be worth a hundred launches.
_CPU_BLOCK = 2**15
_BLOCK = 2**20

Fill = Callable[[Tensor, Tensor, Tensor], None]  # numbers `[M, 2, 2, C]` from even and odd words


def philox(even: Tensor, odd: Tensor, spare: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Random words 0 and 2, and 1 and 3, each `[2, M, C]`, of counters whose words stand likewise.

    All are int64: words of 32 bits, keys `[M]` of 64. The arguments but `keys` are overwritten.
    """
    halves = torch.stack([keys & _LOW, keys >> _WORD])[..., None]
    schedule = halves + (_ROUNDS * _KEY_STEP).to(keys.device)
    for key in schedule.unbind():
        # Factors of 32 bits have a product of 64: its high word is mixed, and its low word is an
        # odd word of the next round. What stands above that matters to nobody until the end.
        torch.mul(even[1], _ODD_FACTOR, out=spare[0])
        torch.mul(even[0], _EVEN_FACTOR, out=spare[1])
        torch.bitwise_right_shift(spare, _WORD, out=even)
        even.bitwise_xor_(odd).bitwise_xor_(key).bitwise_and_(_LOW)
        free = odd
        odd = spare
        spare = free
    return even, odd.bitwise_and_(_LOW)


def normal(keys: Tensor, count: int) -> Tensor:
    """Standard normal draws `[M, count]`, float32; row m is a function of `keys[m]`, int64.

    Integers are the same everywhere, and so is a draw up to the rounding of log, cos and sin.
    """
    return _rows(keys, count, _box_muller)


def uniform(keys: Tensor, count: int) -> Tensor:
    """Draws uniform in [0, 1) `[M, count]`, float32; likewise."""
    return _rows(keys, count, _fractions)


def _rows(keys: Tensor, count: int, fill: Fill) -> Tensor:
    """Four numbers of every counter, in blocks of bounded size."""
    counters = -(-count // 4)
    numbers = torch.empty(len(keys), 2, 2, counters, device=keys.device)
    block = _CPU_BLOCK if keys.device.type == "cpu" else _BLOCK
    columns = min(max(counters, 1), block)
    rows = min(block // columns, max(len(keys), 1))
    work = torch.empty(3, 2 * rows * columns, dtype=torch.int64, device=keys.device)
    for top in range(0, len(keys), rows):
        part = keys[top : top + rows]
        for left in range(0, counters, columns):
            into = numbers[top : top + rows, ..., left : left + columns]
            width = into.shape[-1]
            room = work[:, : 2 * len(part) * width].view(3, 2, len(part), width)
            room[:2] = 0  # a row has fewer than 2^32 counters: their other three words are zero
            room[0, 0] = torch.arange(left, left + width, device=keys.device)
            even, odd = philox(room[0], room[1], room[2], part)
            fill(into, even, odd)
    return numbers.view(len(keys), 4 * counters)[:, :count]


def _box_muller(into: Tensor, even: Tensor, odd: Tensor) -> None:
    # half a step above the fractions of 32 bits, so that none is zero: radii end at 6.8
    radius = even.to(torch.float32).add_(0.5).mul_(2**-32).log_().mul_(-2).sqrt_()
    angle = odd.to(torch.float32).mul_(2 * math.pi * 2**-32)
    torch.mul(radius, angle.cos(), out=into[:, 0].transpose(0, 1))
    torch.mul(radius, angle.sin_(), out=into[:, 1].transpose(0, 1))


def _fractions(into: Tensor, even: Tensor, odd: Tensor) -> None:
    # 24 bits, as many as a float32 has: with more some would be rounded to 1
    for place, words in enumerate((even, odd)):
        into[:, place].transpose(0, 1).copy_(words >> 8).mul_(2**-24)
