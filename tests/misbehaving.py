"""A reward that does, of all that can go wrong, what its first prompt says."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from treerl.reward.contract import Reward

GOOD = 0.5


def _raises(images: Tensor) -> Tensor:
    raise ValueError("no such thing")


def _exits(images: Tensor) -> Tensor:
    raise SystemExit(3)


def _moves(images: Tensor) -> Tensor:
    os.chdir("/")
    return _fine(images)


def _narrows(images: Tensor) -> Tensor:
    torch.set_default_dtype(torch.float64)
    return _fine(images)


def _ungrads(images: Tensor) -> Tensor:
    torch.set_grad_enabled(not torch.is_grad_enabled())
    return _fine(images)


def _threads(images: Tensor) -> Tensor:
    torch.set_num_threads(torch.get_num_threads() + 1)
    return _fine(images)


def _prints(images: Tensor) -> Tensor:
    print('{"protocol": 1, "ids": ["0"], "scores": [9]}', flush=True)
    os.write(1, b"\x00" * 64)
    return _fine(images)


def _draws(images: Tensor) -> Tensor:
    torch.rand(3)
    return _fine(images)


def _hangs(images: Tensor) -> Tensor:
    time.sleep(3600)
    return _fine(images)


def _dies(images: Tensor) -> Tensor:
    os._exit(7)


def _fine(images: Tensor) -> Tensor:
    return torch.full((len(images),), GOOD)


def _with(value: float) -> Callable[[Tensor], Tensor]:
    def made(images: Tensor) -> Tensor:
        scores = _fine(images)
        scores[-1] = value
        return scores

    return made


# what it is called: what it does, and whether the scores are as good as any
BEHAVIOURS: dict[str, tuple[Callable[[Tensor], Any], bool]] = {
    "nan": (_with(float("nan")), False),
    "inf": (_with(float("inf")), False),
    "minus inf": (_with(float("-inf")), False),
    "overflow": (lambda images: _fine(images) * 1e38 * 10 * 10, False),
    "scalar": (lambda images: torch.tensor(GOOD), False),
    "column": (lambda images: _fine(images)[:, None], False),
    "short": (lambda images: _fine(images)[1:], False),
    "long": (lambda images: torch.full((len(images) + 1,), GOOD), False),
    "empty": (lambda images: torch.empty(0), False),
    "list": (lambda images: [GOOD] * len(images), False),
    "none": (lambda images: None, False),
    "text": (lambda images: "0.5", False),
    "numpy": (lambda images: _fine(images).numpy(), False),
    "boolean": (lambda images: _fine(images) > 0, False),
    "complex": (lambda images: _fine(images) * 1j, False),
    "raises": (_raises, False),
    "exits": (_exits, False),
    "moves": (_moves, False),
    "narrows": (_narrows, False),
    "ungrads": (_ungrads, False),
    "threads": (_threads, False),
    "grad": (lambda images: _fine(images).requires_grad_(), True),
    "prints": (_prints, True),
    "draws": (_draws, True),
}
LETHAL = {"hangs": _hangs, "dies": _dies}  # only where it can be killed


class Misbehaving(Reward):
    """Scores 0.5, in the way that the first prompt asks for."""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        found: Any = {
            **{name: one for name, (one, _) in BEHAVIOURS.items()},
            **LETHAL,
            "fine": _fine,
        }[prompts[0]]
        answer: Tensor = found(images)
        return answer
