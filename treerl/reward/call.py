"""One call of a reward: what it does is noticed, and nothing that it returns is believed."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import Tensor

from treerl.engine.task import Samples
from treerl.errors import InputError, RewardError, Stopped, TreerlError, printable, reason
from treerl.reward.contract import Reward
from treerl.reward.guard import guarded, unchanged
from treerl.reward.interrupt import foreign_code, raises

T = TypeVar("T")
Scorer = Callable[[Samples], Tensor]  # a `Reward`, or any function

LARGEST = float(torch.finfo(torch.float32).max)  # a score beyond it overflows when it is squared


def rate(name: str, scorer: Scorer, samples: Samples) -> Tensor:
    """Scores `[N]`, float64 on the CPU; NaN stands for whatever is not a number of float32.

    `RewardError` names the reward and says how it broke its contract.
    """
    first = f" (prompt {shown(samples, 0)})" if len(samples) else ""
    with unchanged(name, samples.images):
        value = _called(name, lambda: scorer(samples), first)
    scores = _column(f"reward {name}", value, len(samples))
    if value.dtype == torch.bool:
        raise RewardError(f"reward {name}: expected real numbers, got {value.dtype}")
    return torch.where(scores.abs() <= LARGEST, scores, math.nan)


def score(name: str, scorer: Scorer, samples: Samples) -> Tensor:
    """Scores `[N]`, all of them finite; `RewardError` names the first sample without one."""
    scores = rate(name, scorer, samples)
    for row, number in enumerate(scores.tolist()):
        if math.isnan(number):
            where = f"sample {row} of {len(samples)} (prompt {shown(samples, row)})"
            raise RewardError(f"reward {name}: no finite number (of float32) for {where}")
    return scores


def begin(name: str, reward: Reward, samples: Samples) -> None:
    """Let a reward start to score, where it can; what is wrong its call will tell."""
    with suppress(RewardError), unchanged(name, samples.images):
        _called(name, lambda: reward.begin(samples), "")


def measure(name: str, reward: Reward, samples: Samples) -> dict[str, Tensor]:
    """The further figures of a reward, each `[N]` in float64; NaN where one is missing."""
    with unchanged(name, samples.images):
        figures = _called(name, lambda: reward.measures(samples), "")
    if not isinstance(figures, Mapping):
        kind = type(figures).__name__
        raise RewardError(f"reward {name}: measures: expected a mapping by name, got {kind}")
    columns = {}
    for title, value in figures.items():
        if not is_title(title):
            raise RewardError(
                f"reward {name}: measures: expected short names, got {shorten(title)}"
            )
        column = _column(f"reward {name}: measure {title}", value, len(samples))
        columns[title] = torch.where(column.isfinite(), column, math.nan)
    return columns


def validate(name: str, reward: Reward, tasks: Sequence[Any]) -> None:
    """`InputError` when the reward cannot score one of the tasks."""
    _called(name, lambda: reward.validate_tasks(tasks), "")


def load(name: str, reward: Reward) -> None:
    """Let a reward read what it needs; `InputError` when it cannot."""
    try:
        reward.load()
    except (TreerlError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise InputError(f"rewards.{name}: cannot be loaded: {reason(error)}") from error


def close(name: str, reward: Reward) -> TreerlError | None:
    """Give back what the reward holds; the error of one that fails at it."""
    try:
        _called(f"{name}: close", reward.close, "")
    except TreerlError as error:
        return error
    return None


def is_title(title: object) -> bool:
    """Whether a measure may be called so: it stands in files, on a terminal and on a page."""
    return isinstance(title, str) and 0 < len(title) <= 64 and title.isprintable()


def shown(samples: Samples, row: int) -> str:
    """The prompt of a sample, as an error quotes it."""
    return shorten(samples.prompts[row])


def shorten(value: object) -> str:
    """A value of somebody else's, as an error quotes it."""
    text = printable(value, 80)
    return f"'{text}'" if isinstance(value, str) else text


def _called(name: str, work: Callable[[], T], where: str) -> T:
    with guarded(name):
        try:
            with foreign_code():
                return work()
        except TreerlError as error:  # it says what is wrong in its own words
            if isinstance(error, Stopped) or str(error).isprintable():
                raise
            raise type(error)(printable(error, 2000)) from error
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and raises():
                raise  # the user's own Ctrl-C
            raise RewardError(f"reward {name}: {reason(error)}{where}") from error


def _column(named: str, value: object, count: int) -> Tensor:
    """`[count]` real numbers of a plain tensor, as float64 on the CPU."""
    if not isinstance(value, Tensor):
        raise RewardError(f"{named}: expected a tensor [{count}], got {type(value).__name__}")
    if value.is_meta or value.is_quantized or value.is_nested or value.layout != torch.strided:
        raise RewardError(f"{named}: expected a plain tensor with values, got {_kind(value)}")
    if tuple(value.shape) != (count,):
        raise RewardError(f"{named}: expected shape ({count},), got {tuple(value.shape)}")
    if value.is_complex():
        raise RewardError(f"{named}: expected real numbers, got {value.dtype}")
    try:
        return value.detach().to("cpu", torch.float64, copy=True)
    except Exception as error:
        raise RewardError(f"{named}: expected numbers, got {reason(error)}") from error


def _kind(value: Tensor) -> str:
    if value.is_meta:
        return "one on the meta device"
    if value.is_quantized:
        return f"a quantised one ({value.dtype})"
    return f"a sparse one ({value.layout})"
