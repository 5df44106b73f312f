"""Which trees to spend forwards on, so that prompts' values are known best for what they cost."""

import torch
from torch import Tensor

_HALVINGS = 100


def mean_errors(variance: Tensor, shapes: Tensor) -> Tensor:
    """The variance `[P, M]` of a prompt's mean over the leaves of each shape: Σ σ²ₜ / nₜ.

    `variance` `[P, S]` is what each stage decides of each prompt, `shapes` `[M, S]` how many draws
    of each stage there are below one of the stage before; nₜ is how many in all (Cochran, Sampling
    Techniques, chapter 10: sampling in several stages).
    """
    return variance @ shapes.double().cumprod(1).reciprocal().T


def allocate(errors: Tensor, cost: Tensor, budget: float) -> Tensor:
    """Which of M shapes each of P prompts gets `[P]`, for the least sum of errors `[P, M]`.

    Together they cost `budget` at most, of `cost` `[M]`. First one price of a forward for all, the
    lowest that the budget bears, then what is left over to those whom it helps most: the best
    there is, or as good but for one shape.
    """
    if len(errors) * float(cost.min()) > budget:
        raise ValueError(f"expected a budget for {len(errors)} of the smallest trees")
    low = 0.0
    gaps = torch.unique(cost).diff()
    high = 1.0  # at which all take the cheapest
    if len(gaps):
        high += float(errors.max() / gaps.min())
    for _ in range(_HALVINGS):
        price = (low + high) / 2
        if float(cost[_cheapest(errors, cost, price)].sum()) > budget:
            low = price
        else:
            high = price
    chosen = _cheapest(errors, cost, high)
    prompts = torch.arange(len(errors))
    while True:
        left = budget - float(cost[chosen].sum())
        present = errors[prompts, chosen]
        affordable = cost[None] <= cost[chosen][:, None] + left
        better = errors.where(affordable, torch.inf).min(1)
        gain = present - better.values
        best = int(gain.argmax())
        if not gain[best] > 0:
            return chosen
        chosen[best] = better.indices[best]


def _cheapest(errors: Tensor, cost: Tensor, price: float) -> Tensor:
    return (errors + price * cost).argmin(1)
