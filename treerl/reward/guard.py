"""What a reward must leave as it is: the state that the whole process shares."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from treerl.errors import RewardError
from treerl.reward.interrupt import check_interrupt

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _folder() -> str | None:
    """The working directory; None where it has been deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _enter(folder: str | None) -> None:
    if folder is not None and os.path.isdir(folder):
        os.chdir(folder)


# what it is called: how it is read, and how it is put back
_SHARED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the working directory": (_folder, _enter),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
}


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Puts back what a reward changed, and names it in a `RewardError`.

    Random generators are put back silently. Signal handlers change at the user's own signal, too:
    then `check_interrupt` says so, and nobody is blamed.
    """
    before = {what: read() for what, (read, _) in _SHARED.items()}
    handlers = _handlers()
    torch_state = torch.random.get_rng_state()
    numpy_state = np.random.get_state()
    python_state = random.getstate()
    changed = []
    try:
        yield
    finally:
        torch.random.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for what, (read, put_back) in _SHARED.items():
            if read() != before[what]:
                put_back(before[what])
                changed.append(what)
        if _handlers() != handlers:
            check_interrupt()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            changed.append("the signal handlers")
    if changed:
        what = ", ".join(changed)
        raise RewardError(f"reward {name}: it changed {what}, which every part of a run shares")


def _handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}
