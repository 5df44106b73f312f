"""What a reward must leave as it found it: the state that the whole process shares."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from treerl.errors import RewardError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Shared = dict[
    str, tuple[Callable[[], Any], Callable[[Any], Any]]
]  # how to read it, how to put it back

_SHARED: Shared = {
    "the working directory": (os.getcwd, os.chdir),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the signal handlers": (
        lambda: [signal.getsignal(one) for one in _SIGNALS],
        lambda kept: [
            signal.signal(one, handler) for one, handler in zip(_SIGNALS, kept, strict=True)
        ],
    ),
}


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Puts back what a reward changed; `RewardError` names it (random generators are put back silently)."""
    kept = {what: read() for what, (read, _) in _SHARED.items()}
    drawn = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        changed = [what for what, (read, _) in _SHARED.items() if read() != kept[what]]
        for what in changed:
            _SHARED[what][1](kept[what])
        torch.random.set_rng_state(drawn[0])
        np.random.set_state(drawn[1])
        random.setstate(drawn[2])
    if changed:
        raise RewardError(
            f"reward {name}: it changed {', '.join(changed)}, which every part of a run shares"
        )
