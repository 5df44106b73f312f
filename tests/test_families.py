"""What single families do beside what all of them share, where no miniature walks by itself."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_backbones import CPU, backbone_of, config, family
from test_image_conditioned import STEPS, rollout, start
from test_modes import two_experts
from torch import Tensor

from treerl.backbone import random_weights
from treerl.backbone.settings import PipelineSettings
from treerl.engine.task import Task

PATHS = (Path("one.png"), Path("two.png"))
TASKS = [Task("a cat"), Task("a dog in the rain", negative="blur")]


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_both_predictions_of_stable_diffusion_take_the_pipelines_path(
    predicts: str, guidance: float
) -> None:
    pipeline = random_weights.build(family("sd15"), "miniature", CPU, torch.float32)
    shipped = pipeline.scheduler
    pipeline.scheduler = type(shipped).from_config(shipped.config, prediction_type=predicts)
    side = random_weights.sizes(family("sd15"))[0][0]
    settings = PipelineSettings(model="miniature", height=side, width=side)
    backbone: Any = family("sd15")(pipeline, settings, CPU)
    assert backbone.schedule(STEPS).predicts == {"epsilon": "noise"}.get(predicts, "v")
    latents, _ = rollout(backbone, TASKS, start(backbone), guidance)
    expected = backbone.call(TASKS, start(backbone), STEPS, guidance, "latent")
    torch.testing.assert_close(latents, expected, atol=2e-5, rtol=1e-5)


def test_of_wans_experts_the_first_has_the_boundary_and_all_above_it() -> None:
    backbone = two_experts()
    text = backbone.encode([TASKS[0]] * 3)["text"]
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, *backbone.shape, generator=draw)
    time = torch.tensor([900.0, 875.0, 874.0])  # of a thousand, the boundary is at 0.875
    condition = backbone.encode([TASKS[0]] * 3)
    with torch.no_grad():
        experts = [
            backbone._expert(name, x, time, text) for name in ("transformer", "transformer_2")
        ]
        mixed = backbone.predict(x, time, condition, 1.0)
        late = backbone.predict(x, time[[2, 2, 2]], condition, 1.0)
        second = backbone._expert("transformer_2", x, time[[2, 2, 2]], text)
    assert float((experts[0] - experts[1]).abs().max()) > 1e-3
    torch.testing.assert_close(mixed[:2], experts[0][:2])
    torch.testing.assert_close(mixed[2:], experts[1][2:])
    torch.testing.assert_close(late, second)


def test_the_frames_that_cogvideox_adds_come_first_and_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in diffusers' call: patches of two frames in time need an even number of them."""
    backbone = backbone_of(config("cogvideox"))
    backbone.frames = 9  # three latent frames
    backbone.pipeline.transformer.register_to_config(patch_size_t=2)
    given: list[Tensor] = []
    monkeypatch.setattr(backbone.pipeline, "decode_latents", given.append)
    assert backbone.shape[0] == 4
    frames = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(1, *backbone.shape)
    backbone.vae_decode(frames)
    assert given[0][0, :, 0, 0, 0].tolist() == [1, 2, 3]


def test_a_tasks_own_negative_prompt_comes_before_the_runs() -> None:
    plain = backbone_of(config("sd35"))
    backbone = backbone_of(config("sd35", "backbone.negative_prompt=ugly"))
    assert backbone.negative_prompt(Task("x", negative="blur")) == "blur"
    assert backbone.negative_prompt(Task("x", negative="")) == ""
    assert backbone.negative_prompt(Task("x")) == "ugly"
    assert plain.negative_prompt(Task("x")) == plain.default_negative_prompt


def test_sdxl_leads_away_from_zeros_only_where_nobody_names_anything_else() -> None:
    zeros = backbone_of(config("sdxl"))
    zeros.pipeline.register_to_config(force_zeros_for_empty_prompt=True)
    named = backbone_of(config("sdxl", "backbone.negative_prompt=ugly"))
    named.pipeline.register_to_config(force_zeros_for_empty_prompt=True)
    for name in ("text", "pooled"):
        first, second = zeros.uncond(TASKS)[name]
        assert not first.any() and bool(second.any())
        assert all(bool(row.any()) for row in named.uncond(TASKS)[name])


def test_what_guidance_leads_away_from_is_encoded_with_the_tasks_own_media(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = backbone_of(config("sd35"))
    asked: list[Task] = []
    real = backbone.uncond

    def uncond(tasks: list[Task]) -> Any:
        asked.extend(tasks)
        return real(tasks)

    monkeypatch.setattr(backbone, "uncond", uncond)
    one, two = ({"image": PATHS[number]} for number in range(2))
    tasks = [Task("a", media=one), Task("b", media=one), Task("a", media=two)]
    monkeypatch.setattr(backbone, "validate_tasks", lambda tasks: None)
    backbone.encode(tasks)
    assert [task.media for task in asked] == [one, two]
