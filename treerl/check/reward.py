"""Whether a reward does what its contract says."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.check.finding import Finding, check, run
from treerl.check.leaks import kept
from treerl.config.schema import Config
from treerl.engine.task import Modality, Samples, Task
from treerl.errors import RewardError
from treerl.reward.build import Place, Scoring
from treerl.reward.call import load, measure, score, validate
from treerl.reward.contract import Reward
from treerl.run.tasks import builtin

_SETS: dict[Modality, tuple[str, ...]] = {
    "images": ("scenes", "shapes"),
    "videos": ("clips", "moving-shapes"),
}
_COUNT = 5
_SIDE = 64
_FRAMES = 5
_TOLERANCE = 1e-5  # relative: a batch of another size may round otherwise


@dataclass(frozen=True)
class Subject:
    """A reward, and samples for it: smooth random ones, one blank, one of noise."""

    name: str
    reward: Reward
    samples: Samples

    def scores(self, order: Sequence[int]) -> Tensor:
        """The scores of these rows, asked together."""
        return score(self.name, self.reward, self.samples.take(torch.tensor(list(order))))


def subject(name: str, reward: Reward) -> Subject:
    """What the checks look at; tasks come from the first built-in set that the reward accepts."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(_COUNT * _FRAMES, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(small, (_SIDE, _SIDE), mode="bicubic").clamp(0, 1)
    images = images.view(_COUNT, _FRAMES, 3, _SIDE, _SIDE)
    images[3] = 1.0
    images[4] = torch.rand(_FRAMES, 3, _SIDE, _SIDE, generator=generator)
    if reward.modality == "images":
        images = images[:, 0]
    return Subject(name, reward, Samples.of(images, _tasks(name, reward)))


@check(
    "return a float tensor [N], finite for every image there can be, blank ones and noise too",
    vital=True,
)
def contract(subject: Subject) -> tuple[bool, str]:
    """The scores of any samples are `[N]` finite numbers, and nothing of the process is changed."""
    scores = subject.scores(range(_COUNT))
    return True, f"{_COUNT} scores from {float(scores.min()):.4g} to {float(scores.max()):.4g}"


@check("score each sample for itself: no mean, no rank, no normalisation over the batch")
def order(subject: Subject) -> tuple[bool, str]:
    """The order of the batch does not matter."""
    back = subject.scores(list(reversed(range(_COUNT)))).flip(0)
    return _same(subject.scores(range(_COUNT)), back)


@check("score each sample for itself, and switch dropout and batch statistics off")
def alone(subject: Subject) -> tuple[bool, str]:
    """A sample scores the same alone and among others."""
    singles = torch.cat([subject.scores([row]) for row in range(_COUNT)])
    return _same(subject.scores(range(_COUNT)), singles)


@check("draw no random numbers, or derive them from the sample; advantages of noise teach noise")
def deterministic(subject: Subject) -> tuple[bool, str]:
    """The same batch twice gives the same scores."""
    first = subject.scores(range(_COUNT))
    again = subject.scores(range(_COUNT))
    worst = float((first - again).abs().max())
    return bool(torch.equal(first, again)), f"largest difference {worst:.1e}"


@check("work on a copy: the samples are scored by others, too")
def leaves_samples(subject: Subject) -> tuple[bool, str]:
    """The samples are not written to."""
    before = subject.samples.images.clone()
    score(subject.name, subject.reward, subject.samples)
    same = bool(torch.equal(before, subject.samples.images))
    return same, "untouched" if same else "changed"


@check(
    "return a dict of tensors [N] from measures(), with short names; NaN where there is no figure"
)
def measures(subject: Subject) -> tuple[bool, str]:
    """The further figures are `[N]` numbers by name."""
    figures = measure(subject.name, subject.reward, subject.samples)
    return True, ", ".join(figures) or "none"


@check("score in batches on the accelerator")
def quick(subject: Subject) -> tuple[bool, str]:
    """A sample is scored within a minute."""
    began = time.perf_counter()
    subject.scores(range(_COUNT))
    each = (time.perf_counter() - began) / _COUNT
    return each < 60, f"{each * 1000:.1f} ms a sample of {_SIDE}x{_SIDE}"


@check("keep nothing of a call: no samples, no open files, no growing cache")
def leaks(subject: Subject) -> tuple[bool, str]:
    """Memory and open files do not grow from call to call."""
    leaks = kept(subject.name, subject.reward, subject.samples)
    if leaks is None:
        return True, "not measured: too slow for enough calls, or the system does not say"
    text = ", ".join(f"{leak.median:.2f} {leak.what} a call" for leak in leaks)
    return not leaks, text or "nothing is kept in this process"


CHECKS = (contract, order, alone, deterministic, leaves_samples, measures, quick, leaks)


def findings(config: Config) -> Iterator[Finding]:
    """What the kit says of the rewards that a configuration names."""
    scoring = Scoring(**dict(config.scoring))
    for name, setting in config.rewards.items():
        fields = {key: value for key, value in setting.spec().items() if key != "weight"}
        reward = Place.of(name, fields, scoring).reward()
        try:
            load(name, reward)
            yield from run(CHECKS, subject(name, reward))
        finally:
            reward.close()


def _tasks(name: str, reward: Reward) -> list[Task]:
    for title in _SETS[reward.modality]:
        tasks = builtin(title)[0][:_COUNT]
        try:
            validate(name, reward, tasks)
        except Exception:
            continue
        return tasks
    sets = ", ".join(_SETS[reward.modality])
    raise RewardError(f"reward {name}: it refuses the prompts of every built-in set: {sets}")


def _same(scores: Tensor, others: Tensor) -> tuple[bool, str]:
    worst = float((scores - others).abs().max() / scores.abs().max().clamp(min=1e-12))
    return worst <= _TOLERANCE, f"largest relative difference {worst:.1e}"
