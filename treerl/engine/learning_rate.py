"""The learning rate of an iteration: what the optimizer was given, or less towards the end."""

import torch

from treerl.engine.algorithm import Decay
from treerl.errors import InputError

_FLOOR = 0.05  # the last iterations still learn


def set_learning_rate(
    optimizer: torch.optim.Optimizer, decay: Decay, iteration: int, iterations: int | None
) -> None:
    """Give the optimizer the rate of `iteration`, a share of its groups' "initial_lr".

    A function of the iteration alone, so that a run taken up again goes on with the same rates.
    A rate that does not decay is left alone: it may have a scheduler of its own.
    """
    if decay == "none":
        return
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor(
            decay, iteration, iterations
        )


def factor(decay: Decay, iteration: int, iterations: int | None) -> float:
    """The share of the learning rate: linearly from 1 down to 5 % after `iterations`."""
    if decay != "linear":
        raise InputError(f"decay: expected none or linear, got {decay!r}")
    if iterations is None:
        raise InputError("decay: expected Trainer(..., iterations=N) with a rate that decays")
    return max(_FLOOR, 1 - iteration / max(iterations, 1))
