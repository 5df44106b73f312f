"""What a reward must leave as it is: the state that the whole process shares."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treerl.errors import RewardError, TreerlError
from treerl.reward.interrupt import check_interrupt
from treerl.reward.streams import kept_streams

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _folder() -> str | None:
    """The working directory; None where it has been deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _set_device(device: torch.device) -> None:
    # a default that is set makes every call of torch slower, so that of torch itself is unset
    torch.set_default_device(None if device.type == "cpu" else device)


def _enter(folder: str | None) -> None:
    if folder is not None and os.path.isdir(folder):
        os.chdir(folder)


# what it is called: how it is read, and how it is put back
_SHARED: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the working directory": (_folder, _enter),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (torch.get_default_device, _set_device),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
}


class SpoiltError(TreerlError):
    """Samples are no longer what the model made: no further call can score them."""

    code = RewardError.code


@contextmanager
def unchanged(name: str, images: Tensor) -> Iterator[None]:
    """`SpoiltError` when a reward changes the samples, which others look at after it."""
    before = _version(images)
    error = f"reward {name}: it changed the samples in place, which are looked at after it"
    try:
        yield
    except RewardError as failure:
        if _version(images) != before:
            raise SpoiltError(error) from failure
        raise
    if _version(images) != before:
        raise SpoiltError(error)


def _version(images: Tensor) -> int:
    """How often torch changed a tensor in place, in any of its views; inference does not count."""
    return 0 if images.is_inference() else images._version


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Puts back what a reward changed, and names it in a `RewardError`.

    Random generators are put back silently. Signal handlers change at the user's own signal, too:
    then `check_interrupt` says so, and nobody is blamed.
    """
    with _settings_kept() as changed, kept_streams() as streams:
        yield
    changed += streams
    if changed:
        what = ", ".join(changed)
        raise RewardError(f"reward {name}: it changed {what}, which every part of a run shares")


@contextmanager
def _settings_kept() -> Iterator[list[str]]:
    """Puts the settings of the process back; at the end the list names those that were changed."""
    before = {what: read() for what, (read, _) in _SHARED.items()}
    handlers = _handlers()
    torch_state = torch.random.get_rng_state()
    numpy_state = np.random.get_state()
    python_state = random.getstate()
    changed: list[str] = []
    try:
        yield changed
    finally:
        for what, (read, put_back) in _SHARED.items():
            if read() != before[what]:
                put_back(before[what])
                changed.append(what)
        torch.random.set_rng_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if _handlers() != handlers:
            check_interrupt()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            changed.append("the signal handlers")


def _handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}
