"""Every announced backbone, on a small genuine pipeline of random weights."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import treerl
from treerl import registry
from treerl.backbone import random_weights as architecture
from treerl.backbone.contract import Backbone
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.settings import PipelineSettings
from treerl.check import CHECKED
from treerl.config import yaml as yamlfile
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.engine import trainer
from treerl.engine.kernel import refuse_unsound
from treerl.engine.recipes import recipes as RECIPES
from treerl.engine.task import Modality
from treerl.reward.contract import Reward
from treerl.run.memory import memory
from treerl.run.plan import Plan

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

    def __init__(self, takes: Modality) -> None:
        self.takes = takes  # type: ignore[misc]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images.flatten(1).mean(1)


def family(name: str) -> type[PipelineBackbone]:
    found: type[PipelineBackbone] = treerl.load("backbones", name)
    return found


def config(name: str, *sets: str) -> Config:
    """A miniature of that family, with a tree small enough for a test."""
    size = zip(("height", "width", "frames"), architecture.sizes(family(name))[0], strict=False)
    small = [
        "env.steps=4",
        "tree.branch=2",
        "tree.depth=2",
        "train.prompts=2",
        "train.rows=4",
        "train.rank=2",
    ]
    small += [f"backbone.{key}={value}" for key, value in size] + [
        "rewards={shapes: 1}",
        "train.updates=2",
    ]
    return resolve(None, {"backbone.name": name, "backbone.model": "miniature"}, [*small, *sets])


def made(chosen: Config) -> trainer.Trainer:
    """A trainer of that configuration whose reward is brightness."""
    backbone: Backbone = family(chosen.backbone.name).load(
        chosen.backbone.settings(PipelineSettings), CPU
    )
    env = treerl.load("envs", "denoising").make(
        backbone, {"brightness": Brightness(backbone.modality)}, chosen
    )
    return trainer.make(chosen, Plan(chosen), backbone, env, lambda: None)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_conformance_kit_finds_nothing_wrong(name: str) -> None:
    found = list(
        CHECKED["backbone"](
            resolve(None, {"backbone.name": name, "backbone.model": "miniature"}, [])
        )
    )
    assert found
    assert [line for finding in found if not finding.good for line in finding.lines()] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_one_treegrpo_iteration(name: str) -> None:
    one = made(config(name, "train.checkpointing=true", "env.store=cpu"))
    before = [parameter.detach().clone() for parameter in one.parameters]
    step = one.iterate(0, ["a cat", "a dog in the rain", "x"])
    assert step.metrics["ratio_deviation"] == 0
    assert step.metrics["leaves"] == 8 and step.metrics["edges"] == 12
    moved = [not torch.equal(a, b) for a, b in zip(before, one.parameters, strict=True)]
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
    assert "/" in chosen.backbone.model and chosen.backbone.dtype == "bfloat16"
    assert chosen.prompts.builtin == ("clips" if family(name).modality == "videos" else "scenes")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_recipe_samples_sound_steps_with_the_published_settings(name: str) -> None:
    chosen = [
        resolve(None, {"backbone.name": name, "recipe": one, "rewards": {"jpeg": 1.0}}, [])
        for one in RECIPES
    ]
    told = replace(
        chosen[0].backbone.settings(PipelineSettings), model="random", offload_text_encoders=False
    )
    backbone = family(name).load(
        told, torch.device("meta")
    )  # schedules need the size, and no weights
    for one in chosen:
        schedule = backbone.schedule(one.env.steps)
        table = registry.build("kernels", one.kernel.name, one.kernel).table(schedule)
        for shape in Plan(one).starts().values():
            refuse_unsound(table, schedule, shape.stochastic)
        assert backbone.schedule(one.evaluate.steps or one.env.steps).steps == (
            one.evaluate.steps or one.env.steps
        )


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "treerl" / "config" / "presets").glob("*.yaml")),
    ids=lambda path: path.stem,
)
def test_a_preset_says_what_the_model_needs_and_leaves_the_algorithm_to_the_recipe(
    path: Path,
) -> None:
    sections = yamlfile.parse(path.read_text(encoding="utf-8"), path.name).plain()
    assert set(sections) <= {
        "backbone",
        "env",
        "train",
        "evaluate",
        "prompts",
        "objective",
        "kernel",
        "rewards",
    }
    assert set(sections.get("objective", {})) <= {
        "clip"
    }  # its unit depends on the size of the latent
    assert (
        sections.get("kernel", {"name": "ddim"})["name"] == "ddim"
    )  # a diffusion model has no other
    assert ("rewards" in sections) <= path.stem.endswith("-tiny")


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
    found = memory(chosen, Plan(chosen))
    assert found["latent_shape"] == [16, 9, 30, 52]  # 33 frames of 240x416
    assert found["rows_per_forward"] == 2 * chosen.train.rows
    assert found["model_bytes"] == pytest.approx(2 * (1.42e9 + 5.68e9) + 4 * 0.127e9, rel=0.01)
    embedded = resolve(None, {"backbone.name": "flux", "rewards": {"jpeg": 1.0}}, [])
    assert memory(embedded, Plan(embedded))["rows_per_forward"] == embedded.train.rows
