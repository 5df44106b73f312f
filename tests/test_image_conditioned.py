"""A family that reads an image works through the task's media: rollout, training, export."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from conditioned import Kontext, Moving
from PIL import Image
from test_backbones import CPU, config, family
from test_export import SMALL, saved
from torch import Tensor

from treerl import registry
from treerl.backbone import lora, random_weights
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.settings import PipelineSettings
from treerl.engine import noise
from treerl.engine.kernel import ODE
from treerl.engine.task import Task
from treerl.errors import InputError
from treerl.run.export import export

STEPS = 4
FAMILIES: list[tuple[type[Any], str]] = [(Kontext, "flux"), (Moving, "ltx")]


def folder(kind: type[Any], shipped: str, place: Path) -> Path:
    """A tiny pipeline of that class, of the parts of the shipped family's."""
    parts = random_weights.build(family(shipped), "miniature", CPU, torch.float32).components
    getattr(diffusers, kind.pipeline_class)(**parts).save_pretrained(place)
    return place


def load(kind: type[Any], shipped: str, place: Path) -> PipelineBackbone:
    height, width, frames = random_weights.sizes(family(shipped))[0]
    settings = PipelineSettings(
        model=str(folder(kind, shipped, place)),
        height=height,
        width=width,
        frames=frames if kind.modality == "videos" else None,
    )
    backbone: PipelineBackbone = kind.load(settings, CPU)
    return backbone


def tasks(place: Path) -> list[Task]:
    """Two tasks with images of their own; the second has a negative prompt too."""
    for number, colour in enumerate([(200, 30, 30), (20, 60, 220)]):
        image = Image.new("RGB", (70, 50), colour)
        image.paste((250, 250, 250), (10, 10, 30, 30))
        image.save(place / f"{number}.png")
    return [
        Task("make it night", media={"image": place / "0.png"}),
        Task("a cat jumps", negative="blur", media={"image": place / "1.png"}),
    ]


def rollout(backbone: PipelineBackbone, asked: list[Task], start: Tensor, guidance: float) -> Any:
    """The deterministic path from `start`, and what it decodes to."""
    condition = backbone.encode(asked)
    schedule = backbone.schedule(STEPS)
    coefficients = ODE().coefficients(schedule)
    x = backbone.initial(start, condition)
    with torch.no_grad():
        for step in range(STEPS):
            time = schedule.time[[step] * len(x)]
            prediction = backbone.predict(x, time, condition, guidance)
            x = coefficients.gaussian(x, prediction, torch.full((len(x),), step)).mean
        return x, backbone.decode(x, condition)


def start(backbone: PipelineBackbone) -> Tensor:
    return noise.normal(noise.children(noise.key(0), 2), backbone.shape, torch.float32, CPU)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize(("kind", "shipped"), FAMILIES)
def test_the_rollout_is_the_pipelines_own_call(
    kind: type[Any], shipped: str, guidance: float, tmp_path: Path
) -> None:
    backbone = load(kind, shipped, tmp_path / "model")
    asked = tasks(tmp_path)
    latents, samples = rollout(backbone, asked, start(backbone), guidance)
    expected = backbone.call(asked, start(backbone), STEPS, guidance, "latent")
    shown = backbone.call(asked, start(backbone), STEPS, guidance, "pt")
    # the pipeline's latents have the image's frame before those that are drawn
    torch.testing.assert_close(latents, expected[:, -latents.shape[1] :], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(samples, shown, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("kind", "shipped"), FAMILIES)
def test_the_image_and_the_negative_prompt_are_read(
    kind: type[Any], shipped: str, tmp_path: Path
) -> None:
    backbone = load(kind, shipped, tmp_path / "model")
    asked = tasks(tmp_path)
    _, samples = rollout(backbone, asked, start(backbone), 3.0)
    swapped = [replace(asked[0], media=asked[1].media), replace(asked[1], media=asked[0].media)]
    _, others = rollout(backbone, swapped, start(backbone), 3.0)
    assert float((samples - others).abs().max()) > 1e-3
    if not backbone.guidance_embedded:
        _, plain = rollout(
            backbone, [asked[0], replace(asked[1], negative=None)], start(backbone), 3.0
        )
        assert torch.equal(plain[0], samples[0]) and not torch.equal(plain[1], samples[1])


@pytest.mark.parametrize(("kind", "shipped"), FAMILIES)
def test_a_lora_learns_through_the_image(kind: type[Any], shipped: str, tmp_path: Path) -> None:
    backbone = load(kind, shipped, tmp_path / "model")
    parameters = lora.attach(backbone, lora.Trainable(rank=2, alpha=2), None, seed=0)
    condition = backbone.encode(tasks(tmp_path))
    x = start(backbone)
    time = backbone.schedule(STEPS).time[[1, 1]]
    backbone.predict(x, time, condition, 3.0).square().mean().backward()  # type: ignore[no-untyped-call]
    assert any(
        parameter.grad is not None and bool(parameter.grad.any()) for parameter in parameters
    )


@pytest.mark.slow
def test_an_edit_model_is_exported_with_its_own_prompt_and_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load(Kontext, "flux", tmp_path / "model")
    chosen = config("flux", f"backbone.model={tmp_path / 'model'}", *SMALL)
    run = saved(backbone, chosen, tmp_path / "run")
    shipped = registry.load

    def load_kind(kind: str, name: str) -> Any:
        return Kontext if kind == "backbones" else shipped(kind, name)

    monkeypatch.setattr(registry, "load", load_kind)
    done = export(run, tmp_path / "out", prompts=tasks(tmp_path))
    assert done.prompt == "make it night" and done.difference <= 1e-4 and done.comfyui
    assert done.change is not None and done.change > 1e-4


@pytest.mark.parametrize(
    ("task", "match"),
    [
        (Task("x"), "task 'x': image: FLUX.1 Kontext needs a file, got none"),
        (Task("x", media={"image": Path("nowhere.png")}), "image: no such file: nowhere.png"),
        (Task("x", media={"image": Path(__file__)}), "task 'x': image: .*cannot identify"),
    ],
)
def test_a_task_without_an_image_is_refused_by_name(task: Task, match: str, tmp_path: Path) -> None:
    backbone = load(Kontext, "flux", tmp_path / "model")
    with pytest.raises(InputError, match=match):
        backbone.encode([task])


def test_a_task_of_another_size_is_refused_by_name() -> None:
    backbone = family("sd35").load(PipelineSettings(max_sequence_length=1), CPU)
    backbone.validate_tasks([Task("x", size=(32, 32)), Task("y")])
    with pytest.raises(InputError, match=r"^task 'x': size: expected 32x32, .* got 64x32$"):
        backbone.validate_tasks([Task("y"), Task("x", size=(64, 32))])
