"""The ways of training: full weights, gradient checkpointing, random weights, two denoisers."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_backbones import CPU, config, family, made

from treerl.backbone import adapter, lora, random_weights as architecture
from treerl.backbone.settings import PipelineSettings
from treerl.check.subject import environment, subject
from treerl.config.resolve import resolve
from treerl.engine.task import Task
from treerl.errors import InputError
from treerl.run import run as runs


def gradients(**train: Any) -> list[torch.Tensor]:
    """Of the mean squared prediction, for every trained weight."""
    chosen = config("flux")
    backbone = family("flux").load(chosen.backbone.settings(PipelineSettings), CPU)
    trained = lora.attach(backbone, lora.Trainable(rank=2, **train), None, seed=0)
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.01)
    one = subject(lambda: backbone)
    one.predict().square().mean().backward()  # type: ignore[no-untyped-call]
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_gradient_checkpointing_changes_no_gradient(weights: str) -> None:
    plain, saving = gradients(mode=weights), gradients(mode=weights, gradient_checkpointing=True)
    assert any(bool(one.any()) for one in plain)
    for one, other in zip(plain, saving, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_a_model_in_bfloat16_trains_weights_in_float32_with_a_ratio_of_one(weights: str) -> None:
    one = made(
        config(
            "flux",
            "backbone.dtype=bfloat16",
            f"train.weights={weights}",
            "train.learning_rate=1e-5",
        )
    )
    assert all(parameter.dtype == torch.float32 for parameter in one.parameters)
    before = [parameter.detach().clone() for parameter in one.parameters]
    metrics = one.iterate(0, ["a cat", "a dog"]).metrics
    assert metrics["ratio_deviation"] == 0
    # 1e-5 is less than half a unit in the last place of most bfloat16 weights: lost in them
    assert (
        sum(not torch.equal(a, b) for a, b in zip(before, one.parameters, strict=True))
        > len(before) / 2
    )


def test_the_unconditional_half_is_trained_only_on_request() -> None:
    def slope(train: bool) -> torch.Tensor:
        chosen = config("sd35", f"backbone.cfg_grad={str(train).lower()}")
        backbone = family("sd35").load(chosen.backbone.settings(PipelineSettings), CPU)
        one = subject(lambda: backbone)
        free = one.condition["negative_text"].clone().requires_grad_()
        tensors = {**one.condition.tensors, "negative_text": free}
        x = one.x.clone().requires_grad_()
        found = backbone.predict(
            x, backbone.schedule(4).time[[1] * 3], type(one.condition)(tensors), 3.5
        )
        found.square().mean().backward()  # type: ignore[no-untyped-call]
        return torch.zeros(1) if free.grad is None else free.grad

    assert not bool(slope(False).any()) and bool(slope(True).any())


def test_a_run_on_random_weights_keeps_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = architecture.parts  # the published sizes do not fit here
    monkeypatch.setattr(architecture, "parts", lambda family, size: real(family, "miniature"))
    small = [
        "env.steps=4",
        "tree.depth=1",
        "train.prompts=1",
        "train.updates=1",
        "train.iterations=1",
        "evaluate.prompts=1",
    ]
    small += [
        "backbone.height=64",
        "backbone.width=64",
        "backbone.dtype=float32",
        f"output={tmp_path / 'run'}",
    ]
    chosen = resolve(
        None,
        {"backbone.name": "sd35", "backbone.model": "random", "rewards": {"jpeg": 1.0}},
        [*small, "train.rows=4"],
    )
    console = Console(record=True, width=200)
    runs.run(chosen, console)
    assert "no checkpoint: a LoRA of random weights could be mistaken" in console.export_text()
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_lora_targets_that_match_nothing_are_listed() -> None:
    chosen = config("sd35")
    backbone: Any = family("sd35").load(chosen.backbone.settings(PipelineSettings), CPU)
    backbone.lora_targets = ("to_nothing", "nowhere")
    with pytest.raises(
        InputError, match=r"no layer of SD3Trans.* matches the LoRA targets to_nothing, nowhere"
    ):
        lora.attach(backbone, lora.Trainable(), None, seed=0)


def test_both_experts_of_wan_are_trained_saved_and_restored(tmp_path: Path) -> None:
    """Wan 2.2 A14B: rows before the boundary are the first expert's, rows after it the second's."""
    Wan = family("wan")

    def load() -> Any:
        pipeline = architecture.build(Wan, "miniature", CPU, torch.float32)
        parts = architecture.parts(Wan, "miniature")
        pipeline.register_modules(transformer_2=architecture.module(parts["transformer"]).eval())
        torch.manual_seed(1)
        for parameter in pipeline.transformer_2.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        pipeline.register_to_config(boundary_ratio=0.875)
        return Wan(pipeline, config("wan").backbone.settings(PipelineSettings), CPU)

    first, second = load(), load()
    trained = lora.attach(first, lora.Trainable(rank=2), None, seed=0)
    assert len(trained) == 2 * len(
        lora.attach(
            Wan.load(config("wan").backbone.settings(PipelineSettings), CPU),
            lora.Trainable(rank=2),
            None,
            seed=0,
        )
    )
    with torch.no_grad():
        for number, parameter in enumerate(trained):
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)),
                alpha=0.1,
            )
    first.save(tmp_path)
    assert (tmp_path / adapter.FILE).is_file() and (
        tmp_path / "transformer_2" / adapter.FILE
    ).is_file()
    lora.attach(second, lora.Trainable(rank=2), tmp_path, seed=1)
    one = subject(lambda: first)
    for step in range(4):
        assert torch.equal(one.predict(first, step), one.predict(second, step))


def test_prompts_are_forgotten_oldest_first_but_never_those_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf: Any = importlib.import_module("treerl.envs.denoising")
    monkeypatch.setattr(shelf, "_REMEMBERED", 3)
    backbone = family("flux").load(config("flux").backbone.settings(PipelineSettings), CPU)
    env = environment(subject(lambda: backbone))
    for asked in (["a", "b", "c"], ["d", "a"], ["e", "f", "g", "h", "a"], ["b"]):
        again = env.ask(asked)
        assert len(again.condition["text"]) == len(asked)  # type: ignore[attr-defined]
        remembered = {task.prompt for task in env.memory}  # type: ignore[attr-defined]
        assert set(asked) <= remembered and len(env.memory) <= max(3, len(asked))  # type: ignore[attr-defined]


def test_text_encoders_are_moved_once_for_many_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone: Any = family("sd35").load(config("sd35").backbone.settings(PipelineSettings), CPU)
    calls: list[str] = []
    encoder = backbone.pipeline.text_encoder_3
    real = encoder.to
    negatives = backbone.uncond

    def moved(where: object) -> Any:
        calls.append(str(where))
        return real(where)

    def negative(tasks: Any) -> Any:
        calls.append("negative")
        return negatives(tasks)

    monkeypatch.setattr(encoder, "to", moved)
    monkeypatch.setattr(backbone, "uncond", negative)
    with backbone.encoding():
        for prompt in ("a", "b", "c"):
            backbone.encode([Task(prompt)])
    assert calls.count("negative") == 1
    assert calls[-1] == "cpu" and backbone._encoding == 0
