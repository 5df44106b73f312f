"""Rewards that are only watched: when they fall while the trained reward rises, the reward is being hacked."""

import torch
from torch import Tensor

CERTAIN = 3.0  # standard errors that a change must exceed
ENOUGH = 20  # samples: of fewer, three standard errors say little
LARGE = (
    0.25  # of the spread that the watched reward had before: smaller falls are not worth an alarm
)


def alarms(before: dict[str, Tensor], after: dict[str, Tensor], gain: Tensor) -> list[str]:
    """What fell, in words; `gain` `[M]` is the trained reward's change, sample by sample from the same noise.

    A watched reward must have fallen by more than CERTAIN standard errors of the paired differences and by more than
    LARGE times its own spread over the samples before, while the trained reward rose by more than CERTAIN of its own.
    """
    gain = gain[torch.isfinite(gain)]
    if len(gain) < ENOUGH or _z(gain) <= CERTAIN:
        return []
    found = []
    for name, was in before.items():
        there = torch.isfinite(was) & torch.isfinite(after[name])
        if int(there.sum()) < ENOUGH:
            continue
        was = was[there]
        fall, spread = was - after[name][there], float(was.std())
        if _z(fall) > CERTAIN and float(fall.mean()) > LARGE * spread:
            figures = f"{float(was.mean()):.4g} to {float((was - fall).mean()):.4g} ({_z(fall):.1f} standard errors)"
            found.append(
                f"watched reward {name} fell from {figures} while the trained reward rose: it may be hacked"
            )
    return found


def _z(change: Tensor) -> float:
    """Mean over standard error; infinite for a change that is the same everywhere."""
    mean, error = float(change.double().mean()), float(change.double().std()) / len(change) ** 0.5
    return (
        mean / error
        if error > 0
        else float(torch.tensor(mean).sign()) * float("inf")
        if mean
        else 0.0
    )
