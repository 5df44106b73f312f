"""The ways of training: full weights, gradient checkpointing, random weights, two denoisers."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_backbones import CPU, backbone_of, config, family, session_of, trained

from treerl.backbone import adapter, lora, random_weights as architecture
from treerl.backbone.contract import Condition
from treerl.check.subject import Subject, environment
from treerl.config.resolve import resolve
from treerl.engine.task import Task
from treerl.errors import InputError
from treerl.report import page
from treerl.run.start import start


def gradients(**train: Any) -> list[torch.Tensor]:
    """Of the mean squared prediction, for every trained weight."""
    backbone = backbone_of(config("flux"))
    parameters = lora.attach(backbone, lora.Trainable(rank=2, **train), None, seed=0)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.01)
    Subject(lambda: backbone).predict().square().mean().backward()  # type: ignore[no-untyped-call]
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_gradient_checkpointing_changes_no_gradient(weights: str) -> None:
    plain = gradients(mode=weights)
    saving = gradients(mode=weights, gradient_checkpointing=True)
    assert any(bool(one.any()) for one in plain)
    for one, other in zip(plain, saving, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_a_model_in_bfloat16_trains_weights_in_float32_with_a_ratio_of_one(weights: str) -> None:
    chosen = config(
        "flux",
        "backbone.dtype=bfloat16",
        f"train.trainable={weights}",
        "train.learning_rate=1e-5",
    )
    session = session_of(chosen)
    assert all(parameter.dtype == torch.float32 for parameter in trained(session))
    before = [parameter.detach().clone() for parameter in trained(session)]
    metrics = session.trainer.iterate(["a cat", "a dog"]).metrics
    assert metrics["ratio_deviation"] == 0
    # 1e-5 is less than half a unit in the last place of most bfloat16 weights: lost in them
    moved = [not torch.equal(a, b) for a, b in zip(before, trained(session), strict=True)]
    assert sum(moved) > len(before) / 2


def test_the_unconditional_half_is_trained_only_on_request() -> None:
    def slope(train: bool) -> torch.Tensor:
        backbone = backbone_of(config("sd35", f"backbone.cfg_grad={str(train).lower()}"))
        one = Subject(lambda: backbone)
        negative = one.condition["negative_text"].clone().requires_grad_()
        condition = Condition({**one.condition.tensors, "negative_text": negative})
        x = one.x.clone().requires_grad_()
        prediction = backbone.predict(x, backbone.schedule(4).time[[1] * 3], condition, 3.5)
        prediction.square().mean().backward()
        return torch.zeros(1) if negative.grad is None else negative.grad

    assert not bool(slope(False).any()) and bool(slope(True).any())


def test_a_run_on_random_weights_can_be_taken_up_but_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = architecture.parts  # the published sizes do not fit here
    monkeypatch.setattr(architecture, "parts", lambda family, size: real(family, "miniature"))
    small = [
        "env.steps=4",
        "tree.branching.depth=1",
        "train.prompts_per_iteration=1",
        "train.optimizer_steps=1",
        "train.iterations=1",
        "train.micro_batch_size=4",
        "evaluate.max_prompts=1",
        "backbone.height=64",
        "backbone.width=64",
        "backbone.dtype=float32",
        f"output={tmp_path / 'run'}",
    ]
    flags = {"backbone.name": "sd35", "backbone.model": "random", "rewards": {"jpeg": 1.0}}
    console = Console(record=True, width=200)
    start(resolve(None, flags, small), console, page.write)
    assert "the run can be taken up again, but nothing can be exported" in console.export_text()
    (kept,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["manifest.json", "training"]


def test_lora_targets_that_match_nothing_are_listed() -> None:
    backbone = backbone_of(config("sd35"))
    backbone.lora_targets = ("to_nothing", "nowhere")
    with pytest.raises(
        InputError, match=r"no layer of SD3Trans.* matches the LoRA targets to_nothing, nowhere"
    ):
        lora.attach(backbone, lora.Trainable(), None, seed=0)


def two_experts() -> Any:
    """Wan 2.2 A14B: rows before the boundary are the first expert's, rows after it the second's."""
    Wan = family("wan")
    pipeline = architecture.build(Wan, "miniature", CPU, torch.float32)
    parts = architecture.parts(Wan, "miniature")
    pipeline.register_modules(transformer_2=architecture.module(parts["transformer"]).eval())
    torch.manual_seed(1)
    for parameter in pipeline.transformer_2.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    pipeline.register_to_config(boundary_ratio=0.875)
    return Wan(pipeline, config("wan").backbone.build(), CPU)


def test_both_experts_of_wan_are_trained_saved_and_restored(tmp_path: Path) -> None:
    first = two_experts()
    second = two_experts()
    parameters = lora.attach(first, lora.Trainable(rank=2), None, seed=0)
    single = lora.attach(backbone_of(config("wan")), lora.Trainable(rank=2), None, seed=0)
    assert len(parameters) == 2 * len(single)
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            draw = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(draw, alpha=0.1)
    first.save(tmp_path)
    assert (tmp_path / adapter.FILE).is_file()
    assert (tmp_path / "transformer_2" / adapter.FILE).is_file()
    lora.attach(second, lora.Trainable(rank=2), tmp_path, seed=1)
    one = Subject(lambda: first)
    for step in range(4):
        assert torch.equal(one.predict(first, step), one.predict(second, step))


def test_prompts_are_forgotten_oldest_first_but_never_those_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf: Any = importlib.import_module("treerl.envs.denoising")
    monkeypatch.setattr(shelf, "_ENCODED", 3)
    backbone = backbone_of(config("flux"))
    env: Any = environment(Subject(lambda: backbone))
    for prompts in (["a", "b", "c"], ["d", "a"], ["e", "f", "g", "h", "a"], ["b"]):
        again = env.with_tasks(prompts)
        assert len(again.condition["text"]) == len(prompts)
        remembered = {task.prompt for task in env.encoded}
        assert set(prompts) <= remembered and len(env.encoded) <= max(3, len(prompts))


def test_text_encoders_are_moved_once_for_many_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_of(config("sd35"))
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
