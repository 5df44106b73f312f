"""What is exported is what diffusers loads: a fresh process without treerl draws the same picture."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_backbones import CPU, FAMILIES, config, family

from treerl.backbone import adapter, lora, random_weights as architecture
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.settings import PipelineSettings
from treerl.config.resolve import dump
from treerl.errors import InputError, StorageError
from treerl.run.export import export


def trained(name: str, folder: Path, *sets: str) -> Path:
    """A run folder as a run leaves it, whose LoRA (or weights) moved."""
    model = folder / "model"
    architecture.build(family(name), "miniature", CPU, torch.float32).save_pretrained(model)
    chosen = config(
        name,
        f"backbone.model={model}",
        "evaluate.steps=2",
        "env.guidance=3",
        "backbone.dtype=float32",
        *sets,
    )
    backbone = family(name).load(chosen.backbone.settings(PipelineSettings), CPU)
    train = chosen.train
    trainable = lora.Trainable(train.weights, train.rank, train.alpha)
    with torch.no_grad():
        for number, parameter in enumerate(lora.attach(backbone, trainable, None, seed=0)):
            draw = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(draw, alpha=0.1)
    run = folder / "run"
    backbone.save(run / "checkpoints" / "last")
    (run / "config.yaml").write_text(dump(chosen), encoding="utf-8")
    return run


@pytest.mark.parametrize("name", FAMILIES)
def test_a_fresh_process_draws_the_same_picture_from_an_exported_lora(
    name: str, tmp_path: Path
) -> None:
    found = export(trained(name, tmp_path), tmp_path / "out")
    assert found.kind == "LoRA" and found.difference <= 1e-4
    assert found.change is not None and found.change > 1e-4
    assert (tmp_path / "out" / adapter.FILE).is_file() and "load_lora_weights" in (
        tmp_path / "out" / "README.md"
    ).read_text()


def test_a_fresh_process_draws_the_same_picture_from_exported_weights(tmp_path: Path) -> None:
    found = export(trained("sd35", tmp_path, "train.weights=full"), tmp_path / "out")
    assert found.kind == "weights" and found.difference <= 1e-4 and found.change is None
    assert (tmp_path / "out" / "model_index.json").is_file()


def test_an_export_that_diffusers_does_not_see_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("sd35", tmp_path)

    def spoilt(backbone: object, folder: Path) -> None:
        folder.mkdir()
        tensors = load_file(run / "checkpoints" / "last" / adapter.FILE)
        save_file(
            {name: torch.zeros_like(tensor) for name, tensor in tensors.items()},
            folder / adapter.FILE,
        )

    monkeypatch.setattr(PipelineBackbone, "save", spoilt)
    with pytest.raises(
        StorageError,
        match=r"^export: diffusers draws another picture than treerl: pixels differ by ",
    ):
        export(run, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "run"]


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"^export: expected a run folder, or a checkpoint in one, got .* \(no config.yaml\)",
    ):
        export(tmp_path, tmp_path / "out")
    run = trained("sd35", tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(InputError, match=r"^export: .* exists and is not empty"):
        export(run, tmp_path / "full")
    text = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(
        text.replace(f"model: {tmp_path / 'model'}", "model: random"), encoding="utf-8"
    )
    with pytest.raises(
        InputError, match=r"^export: .* was trained on random weights, which are nobody's model"
    ):
        export(run, tmp_path / "out")
