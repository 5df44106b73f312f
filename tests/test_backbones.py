"""Every announced backbone, on a small genuine pipeline of random weights."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import treerl
from treerl import registry
from treerl.backbone import random_weights as architecture
from treerl.backbone.pipeline import PipelineBackbone
from treerl.config import yaml as yamlfile
from treerl.config.algorithm import algorithm_of
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.engine.kernel import validate_stds
from treerl.engine.recipes import recipes
from treerl.engine.task import Modality, Samples
from treerl.reward.contract import Reward
from treerl.reward.rewards import Rewards
from treerl.run.assemble import build
from treerl.run.memory import memory
from treerl.run.plan import Plan, plan_of
from treerl.run.session import Session

ROOT = Path(__file__).parent.parent
FAMILIES = sorted(registry.announced("backbones"))
CPU = torch.device("cpu")
PUBLISHED = {  # billions of weights of the denoiser, as the model cards and papers say
    "sd35": 2.24,
    "flux": 11.9,
    "qwen-image": 20.4,
    "z-image": 6.2,
    "sd15": 0.86,
    "sdxl": 2.57,
    "wan": 1.42,
    "ltx": 1.92,
    "hunyuan-video": 12.8,
    "cogvideox": 1.69,
    "mochi": 10.0,
}


class Brightness(Reward):
    """A reward that needs no weights."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality

    def __call__(self, samples: Samples) -> Tensor:
        return samples.images.flatten(1).mean(1)


def family(name: str) -> type[PipelineBackbone]:
    kind: type[PipelineBackbone] = treerl.load("backbones", name)
    return kind


def config(name: str, *sets: str) -> Config:
    """A miniature of that family, with a tree small enough for a test."""
    size = zip(("height", "width", "frames"), architecture.sizes(family(name))[0], strict=False)
    small = [
        "env.steps=4",
        "tree.branching.branching_factor=2",
        "tree.branching.depth=2",
        "train.prompts_per_iteration=2",
        "train.micro_batch_size=4",
        "train.lora_rank=2",
        "train.optimizer_steps=2",
        "rewards={jpeg: 1}",
    ]
    small += [f"backbone.{key}={value}" for key, value in size]
    return resolve(None, {"backbone.name": name, "backbone.model": "miniature"}, [*small, *sets])


def backbone_of(chosen: Config) -> Any:
    """The backbone of that configuration, on the CPU."""
    return family(chosen.backbone.name).load(chosen.backbone.build(), CPU)


def session_of(chosen: Config, reward: Reward | None = None) -> Session:
    """A session of that configuration whose reward is this one; brightness by default."""
    session = build(chosen)
    scorer = reward or Brightness(session.backbone.modality)
    scoring = chosen.scoring
    rewards = Rewards({"brightness": scorer}, None, scoring.on_bad_reward, scoring.retries)
    trainer = replace(session.trainer, rewards=rewards)
    return replace(session, rewards=rewards, trainer=trainer)


def trained(session: Session) -> list[torch.nn.Parameter]:
    """The parameters that train."""
    parameters: list[torch.nn.Parameter] = session.trainer.optimizer.param_groups[0]["params"]
    return parameters


def plan(chosen: Config) -> Plan:
    return plan_of(chosen, algorithm_of(chosen))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_one_treegrpo_iteration(name: str) -> None:
    sets = ["recipe=treegrpo", "train.gradient_checkpointing=true", "env.latent_device=cpu"]
    if name == "mochi":  # its schedule is so steep that the usual noise overshoots in four steps
        sets.append("kernel.noise_level=0.3")
    chosen = config(name, *sets)
    session = session_of(chosen)
    before = [parameter.detach().clone() for parameter in trained(session)]
    step = session.trainer.iterate(["a cat", "a dog in the rain"])
    assert step.metrics["ratio_deviation"] == 0
    assert step.metrics["leaves"] == 8 and step.metrics["edges"] == 12
    moved = [not torch.equal(a, b) for a, b in zip(before, trained(session), strict=True)]
    assert sum(moved) > len(moved) / 2
    assert step.tree.x.device.type == "cpu"


@pytest.mark.parametrize("name", FAMILIES)
def test_the_published_architecture_has_the_published_size(name: str) -> None:
    parts = architecture.parts(family(name), "random")
    denoiser = family(name).denoiser_names[0]
    with torch.device("meta"):
        module = architecture.module(parts[denoiser])
    count = sum(parameter.numel() for parameter in module.parameters()) / 1e9
    assert count == pytest.approx(PUBLISHED[name], rel=0.02)


@pytest.mark.parametrize("name", FAMILIES)
def test_naming_a_backbone_means_its_published_model(name: str) -> None:
    chosen = resolve(None, {"backbone.name": name, "rewards": {"shapes": 1.0}}, [])
    settings = chosen.backbone.build()
    assert "/" in settings.model and settings.dtype == "bfloat16"
    assert chosen.data.builtin == ("clips" if family(name).modality == "videos" else "scenes")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_recipe_samples_sound_steps_with_the_published_settings(name: str) -> None:
    runs = []
    for recipe in recipes:
        flags = {"backbone.name": name, "recipe": recipe, "rewards": {"jpeg": 1.0}}
        runs.append(resolve(None, flags, []))
    settings = replace(
        runs[0].backbone.build(), model="random", offload_text_encoders=False, tiny_vae=None
    )
    # schedules need the size, and no weights
    backbone = family(name).load(settings, torch.device("meta"))
    for run in runs:
        schedule = backbone.schedule(run.env.steps)
        coefficients = algorithm_of(run).kernel.coefficients(schedule)
        for spec in plan(run).support:
            validate_stds(coefficients, schedule, spec.stochastic)
        steps = run.evaluate.steps or run.env.steps
        assert backbone.schedule(steps).steps == steps


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "treerl" / "config" / "presets").glob("*.yaml")),
    ids=lambda path: path.stem,
)
def test_a_preset_says_what_the_model_needs_and_leaves_the_algorithm_to_the_recipe(
    path: Path,
) -> None:
    sections = yamlfile.parse(path.read_text(encoding="utf-8"), path.name).plain()
    known = {"backbone", "env", "train", "evaluate", "data", "objective", "kernel", "rewards"}
    assert set(sections) <= {*known, "tree"}
    # its unit depends on the size of the latent
    assert set(sections.get("objective", {})) <= {"clip_range"}
    # a diffusion model has no other
    assert sections.get("kernel", {"name": "ddim"})["name"] == "ddim"
    tiny = path.stem.endswith("-tiny")
    assert ("rewards" in sections) <= tiny
    assert ("tree" in sections) == (path.stem == "other")


def test_a_backbone_file_is_short_and_none_repeats_another() -> None:
    files = {path.name: _code(path) for path in sorted((ROOT / "backbones").glob("*.py"))}
    assert len(files) > 2
    assert all(len(lines) <= 150 for lines in files.values())
    runs = Counter(run for lines in files.values() for run in set(_runs(lines, 6)))
    assert [run for run, times in runs.items() if times > 1] == []


def _code(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150, path
    return [
        line.strip() for line in lines if line.strip() and not line.startswith(("from ", "import "))
    ]


def _runs(lines: list[str], length: int) -> Iterator[tuple[Any, ...]]:
    for start in range(len(lines) - length + 1):
        yield tuple(lines[start : start + length])


def test_a_plan_asks_the_published_architecture_what_a_run_would_keep() -> None:
    chosen = resolve(None, {"backbone.name": "wan", "rewards": {"moving-shapes": 1.0}}, [])
    figures = memory(chosen, plan(chosen))
    assert figures["latent_shape"] == [16, 9, 30, 52]  # 33 frames of 240x416
    assert figures["rows_per_forward"] == 2 * chosen.train.micro_batch_size
    expected = 2 * (1.42e9 + 5.68e9) + 4 * 0.127e9
    assert figures["model_bytes"] == pytest.approx(expected, rel=0.01)
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        flags = {"backbone.name": "wan", "rewards": {"jpeg": 1.0}, "env.latent_dtype": dtype}
        kept = memory(resolve(None, flags, []), plan(chosen))
        assert kept["latent_bytes"] == figures["stored_latents"] * 16 * 9 * 30 * 52 * size
    embedded = resolve(None, {"backbone.name": "flux", "rewards": {"jpeg": 1.0}}, [])
    figures = memory(embedded, plan(embedded))
    assert figures["rows_per_forward"] == embedded.train.micro_batch_size
