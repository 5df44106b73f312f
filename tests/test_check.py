# mypy: disable-error-code="no-any-return,misc"
"""The conformance kit finds each fault that it looks for, and names it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_backbones import CPU
from torch import Tensor

import treerl
from treerl.backbone import adapter, random_weights as architecture
from treerl.backbone.contract import Backbone, Condition
from treerl.backbone.settings import PipelineSettings
from treerl.check.backbone import CHECKS
from treerl.check.finding import run
from treerl.check.subject import subject
from treerl.engine.schedule import Flow

SD35: type[Any] = treerl.load("backbones", "sd35")


class Unclamped(SD35):
    def decode(self, x: Tensor, condition: Condition) -> Tensor:
        return super().decode(x, condition) * 3 - 1


class Neighbours(SD35):
    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        return {name: one + one.mean(0) for name, one in super().encode_prompts(prompts).items()}


class Deaf(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(
            x, time, condition.take(torch.zeros(len(x), dtype=torch.int64)), guidance
        )


class Bursting(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(x, time, condition, guidance) / (time >= 700).view(-1, 1, 1, 1)


class Counting(SD35):
    calls = 0

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        self.calls += 1
        return super().network(x, time, condition, guidance) + 1e-6 * self.calls


class Batched(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(x - 0.1 * x.mean(0), time, condition, guidance)


class Dropping(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        found = super().network(x, time, condition, guidance)
        return found * 1.01 if self.pipeline.transformer.training else found


class Drawing(SD35):
    def decode(self, x: Tensor, condition: Condition) -> Tensor:
        torch.rand(1)
        return super().decode(x, condition)


class Misplaced(SD35):
    def schedule(self, steps: int) -> Flow:
        right = super().schedule(steps)
        return Flow(time=right.time / 1000, sigma=right.sigma)


class Miscaled(SD35):
    def vae_decode(self, x: Tensor) -> Tensor:
        return super().vae_decode(x * 1.1)


class Untargeted(SD35):
    lora_targets = ("nothing",)


class Detached(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(x, time, condition, guidance).detach().requires_grad_()


class Half(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        found = super().network(x, time, condition, guidance)
        return (found + found.detach()) / 2


class Forgetful(SD35):
    def save(self, folder: Path) -> None:
        super().save(folder)
        tensors = load_file(folder / adapter.FILE)
        with safe_open(folder / adapter.FILE, framework="pt") as file:
            metadata = file.metadata()
        halves = {name: tensor / 2 for name, tensor in tensors.items()}
        save_file(halves, folder / adapter.FILE, metadata)


class Crowded(SD35):
    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        return super().network(x, time, condition, guidance) + 0.1 * len(x)


class Raising(SD35):
    def decode(self, x: Tensor, condition: Condition) -> Tensor:
        raise RuntimeError("out of order")


FAULTS: list[tuple[type[Any], str]] = [
    (Unclamped, "shapes"),
    (Neighbours, "texts alone"),
    (Deaf, "texts count"),
    (Bursting, "finite"),
    (Counting, "repeats"),
    (Batched, "rows alone"),
    (Dropping, "evaluation mode"),
    (Drawing, "no hidden randomness"),
    (Misplaced, "parity"),
    (Miscaled, "parity"),
    (Untargeted, "lora targets"),
    (Detached, "gradients"),
    (Half, "slope"),
    (Forgetful, "saved"),
    (Crowded, "replay"),
    (Raising, "shapes"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    architecture.build(SD35, "miniature", CPU, torch.float32).save_pretrained(made)
    return made


def found(kind: type[Any], folder: Path, names: Sequence[str] | None = None) -> dict[str, bool]:
    def make() -> Backbone:
        one: Backbone = kind.load(PipelineSettings(model=str(folder)), CPU)
        return one

    chosen = [check for check in CHECKS if names is None or check.name in names]
    return {finding.name: finding.good for finding in run(chosen, subject(make))}


@pytest.mark.parametrize(
    ("kind", "name"), FAULTS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_fault_is_found(kind: type[Any], name: str, folder: Path) -> None:
    assert found(kind, folder, [name]) == {name: False}


def test_every_check_has_a_fault_that_it_alone_is_shown_to_find(folder: Path) -> None:
    assert {name for _, name in FAULTS} == {check.name for check in CHECKS}
    assert all(found(SD35, folder).values())


def test_a_finding_says_what_was_expected_what_came_and_how_to_mend_it(folder: Path) -> None:
    check = next(one for one in CHECKS if one.name == "shapes")
    (finding,) = run(
        [check], subject(lambda: Raising.load(PipelineSettings(model=str(folder)), CPU))
    )
    assert finding.lines() == [
        "WRONG shapes: RuntimeError: out of order",
        "      expected: Latents, predictions and samples have the shapes and dtypes of the "
        "contract.",
        "      to mend:  see shape, predict and decode",
    ]
