"""A reward that does, of all that can go wrong, what its first prompt says."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from treerl.engine.task import Samples
from treerl.reward.contract import Reward

FILE = Path(__file__)
GOOD = 0.5


def _raises(images: Tensor) -> Tensor:
    raise ValueError("no such\nthing\x1b[31m")


def _exits(images: Tensor) -> Tensor:
    raise SystemExit(3)


def _interrupts(images: Tensor) -> Tensor:
    raise KeyboardInterrupt


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
    print('{"protocol": 2, "ids": ["0"], "scores": [9]}', flush=True)
    os.write(1, b"\x00" * 64)
    return _fine(images)


def _draws(images: Tensor) -> Tensor:
    torch.rand(3)
    return _fine(images)


def _hangs(images: Tensor) -> Tensor:
    time.sleep(3600)
    return _fine(images)


def _hangs_in_c(images: Tensor) -> Tensor:
    """Holds the interpreter: no thread of its process runs any more."""
    sum(range(10**14))
    return _fine(images)


def _dies(images: Tensor) -> Tensor:
    os._exit(7)


def _fine(images: Tensor) -> Tensor:
    return torch.full((len(images),), GOOD)


def _with(value: float, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
    def scores(images: Tensor) -> Tensor:
        column = _fine(images).to(dtype)
        column[-1] = value
        return column

    return scores


# what it is called: what it does, and whether the scores are as good as any
BEHAVIOURS: dict[str, tuple[Callable[[Tensor], Any], bool]] = {
    "nan": (_with(float("nan")), False),
    "inf": (_with(float("inf")), False),
    "minus inf": (_with(float("-inf")), False),
    "overflow": (lambda images: _fine(images) * 1e38 * 10 * 10, False),
    "too large for float32": (_with(1e200, torch.float64), False),
    "scalar": (lambda images: torch.tensor(GOOD), False),
    "column": (lambda images: _fine(images)[:, None], False),
    "short": (lambda images: _fine(images)[1:], False),
    "long": (lambda images: torch.full((len(images) + 1,), GOOD), False),
    "empty": (lambda images: torch.empty(0), False),
    "list": (lambda images: [GOOD] * len(images), False),
    "none": (lambda images: None, False),
    "object": (lambda images: object(), False),
    "text": (lambda images: "0.5", False),
    "numpy": (lambda images: _fine(images).numpy(), False),
    "boolean": (lambda images: _fine(images) > 0, False),
    "complex": (lambda images: _fine(images) * 1j, False),
    "meta": (lambda images: _fine(images).to("meta"), False),
    "nested": (lambda images: torch.nested.nested_tensor([*_fine(images)[:, None]]), False),
    "sparse": (lambda images: _fine(images).to_sparse(), False),
    "quantised": (
        lambda images: torch.quantize_per_tensor(_fine(images), 1, 0, torch.qint8),
        False,
    ),
    "raises": (_raises, False),
    "exits": (_exits, False),
    "interrupts": (_interrupts, False),
    "moves": (_moves, False),
    "narrows": (_narrows, False),
    "ungrads": (_ungrads, False),
    "threads": (_threads, False),
    "grad": (lambda images: _fine(images).requires_grad_(), True),
    "prints": (_prints, True),
    "draws": (_draws, True),
}
LETHAL = {"hangs": _hangs, "hangs in C": _hangs_in_c, "dies": _dies}  # only where it can be killed


class Misbehaving(Reward):
    """Scores 0.5, in the way that the first prompt asks for."""

    def __call__(self, samples: Samples) -> Tensor:
        behaviours: Any = {name: behaviour for name, (behaviour, _) in BEHAVIOURS.items()}
        behaviours |= {**LETHAL, "fine": _fine}
        scores: Tensor = behaviours[samples.prompts[0]](samples.images)
        return scores


def _resets(images: Tensor) -> Tensor:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return _fine(images)


class Resetting(Reward):
    """Takes a signal handler away; only where rewards run in the main thread."""

    def __call__(self, samples: Samples) -> Tensor:
        return _resets(samples.images)


class Telling(Reward):
    """Shows that all of a sample's task arrives: files, metadata, size and group."""

    def __call__(self, samples: Samples) -> Tensor:
        rows = []
        for task, group in zip(samples.tasks, samples.group.tolist(), strict=True):
            content = sum(len(path.read_bytes()) for path in task.media.values())
            rows.append(content + float(task.metadata["number"]) + task.size[0] + 1000 * group)
        return torch.tensor(rows)

    def measures(self, samples: Samples) -> dict[str, Tensor]:
        numbers = torch.arange(len(samples)).float()
        numbers[0] = float("nan")
        return {"right": numbers > 0, "count": numbers}

    def validate_tasks(self, tasks: Any) -> None:
        from treerl.errors import InputError

        for task in tasks:
            if task.metadata.get("number") == 13:
                raise InputError(f"prompt {task.prompt!r} brings bad luck")
