"""Whether a reward does what its contract says."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from treerl.check.finding import Finding, check, run
from treerl.config.schema import Config
from treerl.engine.task import Modality
from treerl.errors import RewardError
from treerl.reward.build import placed
from treerl.reward.contract import Reward, score
from treerl.run.tasks import builtin

_SETS: dict[Modality, tuple[str, ...]] = {
    "images": ("scenes", "shapes"),
    "videos": ("clips", "moving-shapes"),
}
_COUNT, _SIDE, _FRAMES = 5, 64, 5
_TOLERANCE = 1e-5  # relative: a batch of another size may round otherwise


@dataclass(frozen=True)
class Subject:
    """A reward, and samples for it: smooth random ones, one blank, one of noise."""

    name: str
    reward: Reward
    images: Tensor
    prompts: tuple[str, ...]

    def scores(self, order: Sequence[int]) -> Tensor:
        """The scores of these rows, asked together."""
        return score(
            self.name, self.reward, self.images[list(order)], [self.prompts[row] for row in order]
        )


def subject(name: str, reward: Reward) -> Subject:
    """What the checks look at; prompts come from the first built-in set that the reward does not refuse."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(_COUNT * _FRAMES, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(small, (_SIDE, _SIDE), mode="bicubic").clamp(0, 1)
    images = images.view(_COUNT, _FRAMES, 3, _SIDE, _SIDE)
    images[3], images[4] = 1.0, torch.rand(_FRAMES, 3, _SIDE, _SIDE, generator=generator)
    return Subject(
        name, reward, images if reward.takes == "videos" else images[:, 0], _prompts(reward)
    )


@check("return a float tensor [N], finite for every picture there can be, blank ones and noise too")
def contract(one: Subject) -> tuple[bool, str]:
    """The scores of any samples are `[N]` finite numbers, and nothing of the process is changed."""
    found = one.scores(range(_COUNT))
    return True, f"{_COUNT} scores from {float(found.min()):.4g} to {float(found.max()):.4g}"


@check("score each sample for itself: no mean, no rank, no normalisation over the batch")
def order(one: Subject) -> tuple[bool, str]:
    """The order of the batch does not matter."""
    back = list(reversed(range(_COUNT)))
    return _same(one.scores(range(_COUNT)), one.scores(back).flip(0))


@check("score each sample for itself, and switch dropout and batch statistics off")
def alone(one: Subject) -> tuple[bool, str]:
    """A sample scores the same alone and among others."""
    singles = torch.cat([one.scores([row]) for row in range(_COUNT)])
    return _same(one.scores(range(_COUNT)), singles)


@check("draw no random numbers, or derive them from the sample; advantages of noise teach noise")
def deterministic(one: Subject) -> tuple[bool, str]:
    """The same batch twice gives the same scores."""
    first, again = one.scores(range(_COUNT)), one.scores(range(_COUNT))
    return bool(
        torch.equal(first, again)
    ), f"largest difference {float((first - again).abs().max()):.1e}"


@check("work on a copy: the samples are scored by others, too")
def leaves_samples(one: Subject) -> tuple[bool, str]:
    """The samples are not written to."""
    before = one.images.clone()
    one.scores([0])
    one.reward(one.images, one.prompts)
    same = bool(torch.equal(before, one.images))
    return same, "untouched" if same else "changed"


@check("score in batches on the accelerator")
def quick(one: Subject) -> tuple[bool, str]:
    """A sample is scored within a minute."""
    began = time.perf_counter()
    one.scores(range(_COUNT))
    each = (time.perf_counter() - began) / _COUNT
    return each < 60, f"{each * 1000:.1f} ms a sample of {_SIDE}x{_SIDE}"


CHECKS = (contract, order, alone, deterministic, leaves_samples, quick)


def findings(config: Config) -> Iterator[Finding]:
    """What the kit says of the rewards that a configuration names."""
    for name in config.rewards:
        options = {
            path.removeprefix(f"{name}."): value
            for path, value in config.scoring.options.items()
            if path.startswith(f"{name}.")
        }
        yield from run(CHECKS, subject(name, placed(name, options, config)))


def _prompts(reward: Reward) -> tuple[str, ...]:
    for name in _SETS[reward.takes]:
        texts = builtin(name)[0][:_COUNT]
        try:
            reward.refuse(texts)
        except Exception:
            continue
        return tuple(texts)
    raise RewardError(
        f"it refuses the prompts of every built-in set: {', '.join(_SETS[reward.takes])}"
    )


def _same(one: Tensor, other: Tensor) -> tuple[bool, str]:
    worst = float((one - other).abs().max() / one.abs().max().clamp(min=1e-12))
    return worst <= _TOLERANCE, f"largest relative difference {worst:.1e}"
