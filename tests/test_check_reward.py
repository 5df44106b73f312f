"""The conformance kit finds each fault of a reward that it looks for."""

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from treerl.check import reward as kit
from treerl.check.finding import run
from treerl.config.resolve import resolve
from treerl.reward.contract import Reward


class Good(Reward):
    """Brightness."""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.flatten(1).mean(1)


class Infinite(Good):
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return 1 / images.flatten(1).std(1)


class Ranked(Good):
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return torch.arange(len(images)).float()


class Centred(Good):
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        found = super().__call__(images, prompts)
        return found - found.mean()


class Random(Good):
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return super().__call__(images, prompts) + random.SystemRandom().random()


class Writing(Good):
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.mul_(0.5).flatten(1).mean(1)


FAULTS: list[tuple[type[Reward], str]] = [
    (Infinite, "contract"),
    (Ranked, "order"),
    (Centred, "alone"),
    (Random, "deterministic"),
    (Writing, "leaves samples"),
]


@pytest.mark.parametrize(
    ("kind", "name"), FAULTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_fault_is_found(kind: Any, name: str) -> None:
    chosen = [check for check in kit.CHECKS if check.name == name]
    (found,) = run(chosen, kit.subject("mine", kind()))
    assert not found.good, found.lines()


def test_a_slow_reward_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1e6])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    (found,) = run(
        [check for check in kit.CHECKS if check.name == "quick"], kit.subject("mine", Good())
    )
    assert not found.good


def test_every_check_has_a_fault_and_a_good_reward_has_none() -> None:
    assert {name for _, name in FAULTS} | {"quick"} == {check.name for check in kit.CHECKS}
    assert all(found.good for found in run(kit.CHECKS, kit.subject("mine", Good())))


@pytest.mark.parametrize("name", ["shapes", "moving-shapes", "jpeg"])
def test_the_built_in_rewards_conform(name: str) -> None:
    found = list(kit.findings(resolve(None, {"rewards": {name: 1.0}}, [])))
    assert found and [line for one in found if not one.good for line in one.lines()] == []
