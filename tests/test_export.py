"""What is exported is what others load: a fresh process without treerl draws the same."""

import hashlib
import json
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_torch import Points
from processes import run_script
from safetensors.torch import load_file, save_file
from test_backbones import CPU, FAMILIES, backbone_of, config, family

from treerl.backbone import adapter, comfyui, exporting, lora, random_weights
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.settings import PipelineSettings
from treerl.config.resolve import dump, resolve
from treerl.config.schema import Config
from treerl.engine.task import Task
from treerl.errors import InputError, StorageError
from treerl.run.export import export

SMALL = ["evaluate.steps=2", "env.guidance=3", "backbone.dtype=float32"]


def trained(name: str, folder: Path, *sets: str) -> Path:
    """A run folder as a run leaves it, whose LoRA (or weights) moved."""
    model = folder / "model"
    random_weights.build(family(name), "miniature", CPU, torch.float32).save_pretrained(model)
    chosen = config(name, f"backbone.model={model}", *SMALL, *sets)
    return saved(backbone_of(chosen), chosen, folder / "run")


def saved(backbone: Any, chosen: Config, run: Path) -> Path:
    """The run folder of a backbone that is trained a little."""
    train = chosen.train
    trainable = lora.Trainable(train.trainable, train.lora_rank, train.lora_alpha)
    with torch.no_grad():
        for number, parameter in enumerate(lora.attach(backbone, trainable, None, seed=0)):
            draw = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(draw, alpha=0.1)
    backbone.save(run / "checkpoints" / "iteration-000001")
    (run / "config.yaml").write_text(dump(chosen), encoding="utf-8")
    return run


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh processes without the seconds of their imports."""
    monkeypatch.setattr(subprocess, "run", run_script)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_fresh_process_draws_the_same_image_from_an_exported_lora(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name != "sd35":  # one of them is drawn by an interpreter of its own
        request.getfixturevalue("forked")
    done = export(trained(name, tmp_path), tmp_path / "out")
    assert done.kind == "LoRA" and done.difference <= 1e-4
    assert done.change is not None and done.change > 1e-4
    assert (tmp_path / "out" / adapter.FILE).is_file()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "load_lora_weights" in card
    assert (tmp_path / "out" / comfyui.FILE).is_file() == done.comfyui
    assert ("not provided" in card) != done.comfyui


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
@pytest.mark.filterwarnings("ignore:.upcast_vae. is deprecated")  # diffusers' own call
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_unet_in_half_precision_is_exported(name: str, dtype: str, tmp_path: Path) -> None:
    done = export(trained(name, tmp_path, f"backbone.dtype={dtype}"), tmp_path / "out")
    assert done.kind == "LoRA" and done.difference <= 1e-4


@pytest.mark.slow
def test_a_fresh_process_draws_the_same_image_from_exported_weights(tmp_path: Path) -> None:
    done = export(trained("sd35", tmp_path, "train.trainable=full"), tmp_path / "out")
    assert done.kind == "weights" and done.difference <= 1e-4 and done.change is None
    assert (tmp_path / "out" / "model_index.json").is_file()


@pytest.mark.usefixtures("forked")
def test_a_lora_that_no_pipeline_loads_is_merged_into_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as with PixArt, Latte and fourteen more classes of diffusers
    monkeypatch.setattr(exporting, "_loads_lora", lambda pipeline: False)
    run = trained("sd35", tmp_path)
    base = load_file(tmp_path / "model" / "transformer" / "diffusion_pytorch_model.safetensors")
    done = export(run, tmp_path / "out")
    assert done.kind == "weights" and done.difference <= 1e-4
    merged = load_file(tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert set(merged) == set(base)
    assert any(not torch.equal(merged[name], base[name]) for name in base)


@pytest.mark.usefixtures("forked")
def test_the_image_is_of_a_prompt_of_the_run(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("an owl at night\n", encoding="utf-8")
    done = export(trained("sd35", tmp_path, f"data.train={prompts}"), tmp_path / "out")
    assert done.prompt == "an owl at night"


@pytest.mark.usefixtures("forked")
def test_an_export_that_diffusers_does_not_see_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("sd35", tmp_path)
    write = exporting.write

    def spoilt(backbone: PipelineBackbone, folder: Path) -> None:
        write(backbone, folder)
        path = folder / adapter.FILE
        save_file({name: tensor * 0 for name, tensor in load_file(path).items()}, path)

    monkeypatch.setattr(exporting, "write", spoilt)
    with pytest.raises(
        StorageError,
        match=r"^export: diffusers draws another image than treerl: pixels differ by ",
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
        text.replace(f"model: {tmp_path / 'model'}", "model: miniature"), encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"^export: the run was trained on random weights"):
        export(run, tmp_path / "out")


@pytest.mark.parametrize("place", ["a" * 300, "loop", "file", "file/x"])
def test_a_path_that_leads_nowhere_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.iterdir())
    for source, target in ((tmp_path / place, tmp_path / "out"), (tmp_path, tmp_path / place)):
        with pytest.raises((InputError, StorageError)) as caught:
            export(source, target)
        assert str(caught.value).isprintable()
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A run of a plain backbone from a user's own file, which is gone afterwards."""
    original = tmp_path / "mine.py"
    shutil.copy(Path(__file__).parent / "plain_torch.py", original)
    name = f"{original}:Points"
    flags = {"backbone.name": name, "rewards": {"jpeg": 1.0}}
    sets = ["train.lora_rank=2", "env.steps=4", "tree.branching.depth=2"]
    chosen = resolve(None, flags, sets, allow_plugins=True)
    run = saved(Points.load(Points.Settings(), CPU), chosen, tmp_path / "run")
    copy = run / "plugins" / "mine.py"
    copy.parent.mkdir()
    shutil.move(original, copy)
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    entry = {"name": name, "path": str(original), "sha256": digest, "copy": "plugins/mine.py"}
    (run / "manifest.json").write_text(json.dumps({"plugins": [entry]}), encoding="utf-8")
    return run


def test_a_plug_in_needs_leave_and_its_copy_is_what_runs(plugin: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="add --allow-plugins"):
        export(plugin, tmp_path / "out")
    done = export(plugin, tmp_path / "out", allow_plugins=True)
    assert done.kind == "LoRA" and done.difference == 0
    assert done.lines() == [
        f"exported: {tmp_path / 'out'} (LoRA)",
        "loaded again: differs by 0 at most",
    ]
    described = json.loads((tmp_path / "out" / "describe.json").read_text(encoding="utf-8"))
    assert described["title"] == "Points"


def test_a_copy_that_was_changed_is_not_run(plugin: Path, tmp_path: Path) -> None:
    copy = plugin / "plugins" / "mine.py"
    copy.write_text("raise SystemExit('this must not run')\n", encoding="utf-8")
    with pytest.raises(InputError, match="is not the plug-in that the run used: expected sha256"):
        export(plugin, tmp_path / "out", allow_plugins=True)


@pytest.mark.parametrize("text", ['{"plugins": []}', "{}", "[]", "junk", "[" * 100_000])
def test_a_manifest_without_the_copy_is_refused(plugin: Path, tmp_path: Path, text: str) -> None:
    (plugin / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"^export: "):
        export(plugin, tmp_path / "out", allow_plugins=True)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond some kilobytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, weights: str) -> None:
    run = trained("sd35", tmp_path, f"train.trainable={weights}")
    checkpoint = run / "checkpoints" / "iteration-000001"
    backbone = family("sd35").load(PipelineSettings(model=str(tmp_path / "model")), CPU)
    backbone.restore(checkpoint)
    with full_disk(), pytest.raises(StorageError) as error:
        backbone.save(tmp_path / "again")
    assert "\n" not in str(error.value)
    with full_disk(), pytest.raises(StorageError):
        export(run, tmp_path / "out", prompts=[Task("a cat")])
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
