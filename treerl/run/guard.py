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
MOST = 0.9  # share of edges that are clipped, or whose advantage is 0
ALIKE = 0.01  # spread of siblings, over that of a prompt's samples


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
    lasts: dict[str, int] = field(default_factory=dict)  # iterations in a row, by what is wrong
    _said: set[str] = field(default_factory=set)

    def look(self, metrics: Mapping[str, Any], prompts: int) -> list[Trouble]:
        """What is wrong since this iteration."""
        self.rewards.append(_number(metrics["reward"]))
        self.stds.append(_number(metrics["reward_std"]))
        flat = _number(metrics["zero_std_prompts"]) >= prompts
        self._count("flat", flat)
        self._count("clipped", _number(metrics["clip_fraction"]) > MOST)
        self._count("idle", not flat and _number(metrics["zero_advantages"]) > MOST)
        self._count("alike", not flat and _siblings_are_alike(metrics))
        norm = _number(metrics["grad_norm"])
        self._count("still", not flat and norm == 0)
        texts = {
            **{name: text for name, text in _LASTING.items() if self.lasts[name] >= SPAN},
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

    def _count(self, name: str, wrong: bool) -> None:
        self.lasts[name] = self.lasts.get(name, 0) + 1 if wrong else 0

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


# what is said of a thing that has been wrong for so many iterations
_LASTING = {
    "flat": (
        f"for {SPAN} iterations every sample of a prompt got the same reward: nothing is "
        "learned; look at the reward, or at prompts that are neither always nor never solved"
    ),
    "clipped": (
        f"for {SPAN} iterations more than {MOST:.0%} of the edges were clipped, and taught "
        "nothing; lower train.learning_rate, or raise objective.clip_range"
    ),
    "idle": (
        f"for {SPAN} iterations more than {MOST:.0%} of the advantages were 0: little is learned; "
        "look at the reward, or at advantage.baseline"
    ),
    "still": (
        f"for {SPAN} iterations the gradient was 0, though samples differed: what is trained does "
        "not reach the loss; look at backbone.adapter and the objective"
    ),
    "alike": (
        f"for {SPAN} iterations siblings hardly differed from each other, though a prompt's "
        "samples did: raise the kernel's noise, or split at earlier steps"
    ),
}


def _siblings_are_alike(metrics: Mapping[str, Any]) -> bool:
    """Whether trees split, and what they split into scores the same."""
    splits = [step for step in metrics["variance_by_step"] if step != "-1"]  # -1: between trees
    limit = ALIKE * _number(metrics["reward_std"])
    return bool(splits) and _number(metrics["sibling_std"]) < limit


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
