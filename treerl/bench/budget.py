"""The budget that every cell of a comparison gets, and the marks on the way to its end."""

import math
from dataclasses import dataclass

from treerl.errors import InputError, shorten
from treerl.registry import nearest, to_float
from treerl.run.plan import Counts, Plan

_MOST = 100_000  # iterations; more of them is a slip of the finger
BACKWARD = 3  # forwards that an update forward counts as: a backward costs about two of them
KINDS = {
    "forwards": "forwards (sampling + reference + 3 × update)",
    "seconds": "seconds of training",
    "rewards": "reward calls",
}


@dataclass(frozen=True)
class Budget:
    """So many forwards, seconds of training, or reward calls; held-out evaluations are free."""

    kind: str
    amount: float

    @property
    def text(self) -> str:
        """As it is written: `forwards=40000`."""
        return f"{self.kind}={self.amount:.15g}"

    def spent(self, work: Counts, seconds: float) -> float:
        """What that work is in this budget's unit."""
        if self.kind == "seconds":
            return seconds
        return cost(self.kind, work)

    def iterations(self, plan: Plan) -> int | None:
        """The iterations in which a plan spends it, by the trees that its seed draws.

        The last one may go beyond. None for seconds, which no plan knows.
        """
        if self.kind == "seconds":
            return None
        if self.amount > _MOST * cost(self.kind, plan.drawn_in(0)):
            raise InputError(
                f"--budget: {self.kind}: expected at most what about {_MOST:,} iterations spend, "
                f"got {self.amount:g}"
            )
        spent = 0.0
        iterations = 0
        while spent < self.amount:
            spent += cost(self.kind, plan.drawn_in(iterations))
            iterations += 1
        return iterations


def cost(kind: str, work: Counts) -> float:
    """Work in forwards or in reward calls."""
    if kind == "rewards":
        return work.reward_calls
    without_backward = work.sampling_forwards + work.reference_forwards
    return without_backward + BACKWARD * work.update_forwards


def parse(text: str) -> Budget:
    """`forwards=40000` as a budget."""
    kind, _, number = text.partition("=")
    if kind not in KINDS:
        raise InputError(f"--budget: expected KIND=N, got {shorten(text)}; {nearest(kind, KINDS)}")
    amount = to_float(number.strip())
    if not isinstance(amount, float) or not math.isfinite(amount) or amount <= 0:
        raise InputError(f"--budget: {kind}: expected a number > 0, got {shorten(number)}")
    return Budget(kind, amount)
