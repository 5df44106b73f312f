"""The conformance kit finds each fault of a reward that it looks for."""

import io
import random
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from treerl.check import reward as kit
from treerl.check.finding import run
from treerl.check.leaks import slope
from treerl.config.resolve import resolve
from treerl.engine.task import Samples
from treerl.reward.contract import Reward


class Good(Reward):
    """Brightness."""

    def __call__(self, samples: Samples) -> Tensor:
        return samples.images.flatten(1).mean(1)


class Infinite(Good):
    def __call__(self, samples: Samples) -> Tensor:
        return 1 / samples.images.flatten(1).std(1)


class Ranked(Good):
    def __call__(self, samples: Samples) -> Tensor:
        return torch.arange(len(samples)).float()


class Centred(Good):
    def __call__(self, samples: Samples) -> Tensor:
        scores = super().__call__(samples)
        return scores - scores.mean()


class Random(Good):
    def __call__(self, samples: Samples) -> Tensor:
        return super().__call__(samples) + random.SystemRandom().random()


class Writing(Good):
    def __call__(self, samples: Samples) -> Tensor:
        return samples.images.mul_(0.5).flatten(1).mean(1)


class Untidy(Good):
    def measures(self, samples: Samples) -> dict[str, Tensor]:
        return {"right": torch.zeros(1)}


class Keeping(Good):
    """Keeps the samples of every call."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def __call__(self, samples: Samples) -> Tensor:
        self.kept.append(samples)
        return super().__call__(samples)


class Opening(Keeping):
    """Leaves a file open after every call."""

    def __call__(self, samples: Samples) -> Tensor:
        self.kept.append(open("/dev/null", "rb"))
        return Good.__call__(self, samples)


class Warming(Keeping):
    """Fills a cache of ten calls, and forgets."""

    def __call__(self, samples: Samples) -> Tensor:
        self.kept = [*self.kept[-9:], samples.images.repeat(20, 1, 1, 1)]
        return Good.__call__(self, samples)


FAULTS: list[tuple[type[Reward], str]] = [
    (Infinite, "contract"),
    (Ranked, "order"),
    (Centred, "alone"),
    (Random, "deterministic"),
    (Writing, "leaves samples"),
    (Untidy, "measures"),
    (Keeping, "leaks"),
    (Opening, "leaks"),
]


@pytest.mark.parametrize(
    ("kind", "name"), FAULTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_fault_is_found(kind: Any, name: str) -> None:
    chosen = [check for check in kit.CHECKS if check.name == name]
    reward = kind()
    (finding,) = run(chosen, kit.subject("mine", reward))
    assert finding.wrong, finding.lines()
    for kept in getattr(reward, "kept", []):
        if isinstance(kept, io.IOBase):
            kept.close()


class Exiting(Good):
    def __call__(self, samples: Samples) -> Tensor:
        raise SystemExit(0)


@pytest.mark.parametrize("kind", [Infinite, Exiting])
def test_one_cause_is_said_once(kind: Any) -> None:
    first, rest = run(kit.CHECKS, kit.subject("mine", kind()))
    assert first.wrong and (rest.outcome, rest.came) == ("skipped", "they need contract")


def test_a_slow_reward_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1e6])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    chosen = [check for check in kit.CHECKS if check.name == "quick"]
    (finding,) = run(chosen, kit.subject("mine", Good()))
    assert finding.wrong


def test_every_check_has_a_fault_and_a_good_reward_has_none() -> None:
    assert {name for _, name in FAULTS} | {"quick"} == {check.name for check in kit.CHECKS}
    assert not any(finding.wrong for finding in run(kit.CHECKS, kit.subject("mine", Good())))


@pytest.mark.parametrize("name", ["shapes", "moving-shapes", "jpeg"])
def test_the_built_in_rewards_conform(name: str) -> None:
    findings = list(kit.findings(resolve(None, {"rewards": {name: 1.0}}, [])))
    assert findings
    assert [line for finding in findings if finding.wrong for line in finding.lines()] == []


def test_a_cache_that_fills_is_no_leak() -> None:
    (finding,) = run([kit.leaks], kit.subject("mine", Warming()))
    assert not finding.wrong, finding.lines()


def test_the_slope_of_a_series_ignores_jumps_and_sees_a_trend() -> None:
    noise = np.random.default_rng(0).normal(size=40)
    jump = np.zeros(40)
    jump[10:] = 1e6
    assert slope(noise)[1] <= 0 and slope(jump) == (0, 0) and slope(-np.arange(40.0))[1] < 0
    median, least = slope(0.5 * np.arange(40.0) + noise)
    assert median == pytest.approx(0.5, abs=0.05) and 0.4 < least < median
    assert slope(np.arange(40.0)) == (1, 1)
