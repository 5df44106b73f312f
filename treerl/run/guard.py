"""Says, while it happens, that a run cannot be right: nothing is taught, or all is destroyed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from statistics import fmean, median, stdev
from typing import Any

SPAN = 5  # iterations that are averaged before anything is said
FALL = 1.0  # standard deviations within a prompt, as they were at the start
CERTAIN = 4.0  # standard errors of the average
SPIKE = 20.0  # times the median gradient norm before
DROWNS = 0.95  # share of the variance that is trained on


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong with a run."""

    text: str
    serious: bool  # whether going on makes no sense
    curable: bool = False  # whether smaller steps from an earlier checkpoint may help


@dataclass
class Guard:
    """Looks at the figures of every iteration; each thing is said once, until it has passed."""

    rewards: list[float] = field(default_factory=list)
    stds: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    flat: int = 0  # iterations in a row that taught nothing
    _said: set[str] = field(default_factory=set)

    def look(self, metrics: Mapping[str, Any], prompts: int) -> list[Trouble]:
        """What is wrong since this iteration."""
        self.rewards.append(_number(metrics["reward"]))
        self.stds.append(_number(metrics["reward_std"]))
        teaches_nothing = _number(metrics["zero_std_prompts"]) >= prompts
        self.flat = self.flat + 1 if teaches_nothing else 0
        norm = _number(metrics["grad_norm"])
        texts = {
            "flat": self._flat(),
            "collapse": self._collapse(),
            "spike": self._spike(norm),
            "drowned": _drowned(metrics["reward_shares"]) if len(self.rewards) == 1 else None,
        }
        self.norms.append(norm)
        new = []
        for name, text in texts.items():
            if text is not None and name not in self._said:
                serious = name in ("flat", "collapse")
                new.append(Trouble(text, serious, curable=name == "collapse"))
        self._said = {name for name, text in texts.items() if text is not None}
        return new

    def _flat(self) -> str | None:
        if self.flat < SPAN:
            return None
        return (
            f"for {SPAN} iterations every sample of a prompt got the same reward: nothing is "
            "learned; look at the reward, or at prompts that are neither always nor never solved"
        )

    def _collapse(self) -> str | None:
        """The reward fell far below its own best, or its beginning: the model is being
        destroyed."""
        if len(self.rewards) <= SPAN:
            return None
        ends = range(SPAN, len(self.rewards) - SPAN + 1)
        earlier = [fmean(self.rewards[end - SPAN : end]) for end in ends]
        best = max([self.rewards[0], *earlier])
        now = self.rewards[-SPAN:]
        fall = best - fmean(now)
        error = stdev(now) / SPAN**0.5
        if fall <= FALL * fmean(self.stds[:SPAN]) or fall <= CERTAIN * error:
            return None
        return (
            f"the training reward fell from {best:.4g} to {fmean(now):.4g}: the model may be "
            "destroyed; lower train.learning_rate"
        )

    def _spike(self, norm: float) -> str | None:
        if len(self.norms) < SPAN:
            return None
        usual = median(self.norms[-50:])
        if usual <= 0 or norm <= SPIKE * usual:
            return None
        return f"the gradient norm is {norm:.3g}, {norm / usual:.0f} times what it was before"


def _number(value: Any) -> float:
    """A figure, of which a file says null where it was not finite."""
    return nan if value is None else float(value)


def _drowned(shares: Mapping[str, float]) -> str | None:
    if len(shares) < 2:
        return None
    sizes = {name: _number(share) for name, share in shares.items()}
    name = max(sizes, key=lambda reward: sizes[reward])
    if not sizes[name] > DROWNS:
        return None
    return (
        f"reward {name} makes {sizes[name]:.1%} of the variance: it drowns the others; "
        "mind the weights"
    )
