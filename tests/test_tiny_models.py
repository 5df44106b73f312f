"""The models inside the package: small, genuine, loadable offline, good but wrong often."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import treerl

GENUINE = {
    "sd35": "SD3Transformer2DModel",
    "flux": "FluxTransformer2DModel",
    "wan": "WanTransformer3DModel",
}


def folder(name: str) -> Path:
    return Path(str(files("treerl") / "tiny" / name))


def figures(name: str, guidance: float) -> dict[str, Any]:
    """What held-out samples of the untrained model are, as a run evaluates them."""
    settings = {
        "backbone.name": name,
        "backbone.model": "tiny",
        "env.guidance": guidance,
        "evaluate.samples_per_prompt": 3,
        "train.micro_batch_size": 24,
        "seed": 5,
    }
    return treerl.assemble(settings=settings).evaluate().summary()


def test_every_tiny_model_is_tried_here() -> None:
    names = {path.name for path in folder("sd35").parent.iterdir() if path.is_dir()}
    assert names == set(GENUINE)


@pytest.mark.parametrize("name", GENUINE)
def test_it_is_small_and_made_of_diffusers_own_classes(name: str) -> None:
    sizes = [path.stat().st_size for path in folder(name).rglob("*") if path.is_file()]
    assert sum(sizes) <= 8_000_000
    index = json.loads((folder(name) / "model_index.json").read_text())
    assert index["transformer"] == ["diffusers", GENUINE[name]]
    assert not list(folder(name).rglob("*.bin")) and not list(folder(name).rglob("*.pt"))


@pytest.mark.parametrize("name", GENUINE)
def test_it_is_wrong_often_without_guidance(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    measures = figures(name, 1.0)["measures"]
    assert 0.4 < measures["right"] < 0.75
    assert measures["clean"] > 0.9


@pytest.mark.parametrize("name", ["sd35", "wan"])  # the tiny FLUX has no guidance
def test_it_knows_better_with_guidance(name: str) -> None:
    assert figures(name, 3.0)["measures"]["right"] > 0.8
