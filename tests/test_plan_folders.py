"""What a plan says of folders: where a run would write, and weights that it would start from."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import treerl
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.errors import InputError, TreerlError
from treerl.run.assemble import build
from treerl.run.claim import claim
from treerl.run.plan_table import table

_SMALL = ("backbone.model=miniature", "rewards={jpeg: 1}", "evaluate.max_prompts=2")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings' paths lead to."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _config(*sets: str) -> Config:
    return resolve(None, {}, [*_SMALL, *sets])


def _saved(folder: Path, *sets: str) -> None:
    session = treerl.assemble(_config(*sets))
    session.save(folder)
    session.close()


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_plan_takes_weights_that_a_run_takes(mode: str, folder: Path) -> None:
    _saved(folder / "start", f"train.trainable={mode}")
    sets = (f"train.trainable={mode}", "backbone.adapter=start")
    assert table(_config(*sets))["memory"]["model_bytes"] > 0
    other = "full" if mode == "lora" else "lora"
    with pytest.raises(InputError, match=rf"^train.trainable: expected {mode}, as backbone.adap"):
        table(_config(f"train.trainable={other}", "backbone.adapter=start"))


def test_a_plan_misses_a_tensor_of_whole_weights(folder: Path) -> None:
    sets = ("train.trainable=full", "backbone.adapter=start")
    _saved(folder / "start", sets[0])
    path = folder / "start/transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors[min(tensors)]
    save_file(tensors, path, {"format": "pt"})
    said = []
    for work in (build, table):
        with pytest.raises(InputError, match="lacks") as caught:
            work(_config(*sets))
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_plan_does_not_judge_an_adapter_by_another_model(folder: Path) -> None:
    """A hub id may be larger than the family's published model, whose shapes alone are known."""
    _saved(folder / "start")
    table(_config("backbone.model=somebody/large", "backbone.adapter=start"))


def test_a_plan_needs_no_package_of_the_machine_that_trains(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise InputError("backbone.quantize: bitsandbytes is not installed")

    monkeypatch.setattr("treerl.backbone.pipeline.bitsandbytes", missing)
    table(_config("backbone.quantize=nf4"))
    with pytest.raises(InputError, match="bitsandbytes"):
        build(_config("backbone.quantize=nf4"))


@pytest.mark.parametrize("model", ["tiny", "somebody/large"])
@pytest.mark.parametrize(
    ("family", "vae", "says"),
    [("wan", "a/b", "expected null, as tiny autoencoders are of images"), ("sd35", "./none", "")],
)
def test_a_tiny_autoencoder_is_looked_at_whatever_the_model(
    model: str, family: str, vae: str, says: str, folder: Path
) -> None:
    flags: dict[str, object] = {
        "backbone.name": family,
        "backbone.model": model,
        "backbone.tiny_vae": vae,
    }
    flags["rewards"] = {"jpeg": 1.0}
    with pytest.raises(InputError, match=rf"^backbone.tiny_vae: {says}"):
        table(resolve(None, flags, []))


@pytest.mark.parametrize(
    "sets",
    [
        ("backbone.compile=blocks",),
        ("train.teacher=.", "objective.kl=0.1", "objective.anchor=teacher"),
    ],
)
def test_what_a_model_in_parts_cannot_have_is_refused(sets: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"with parallel\.shard"):
        _config("parallel.shard=true", *sets)


def test_a_plan_of_a_run_that_is_there_is_no_mistake(folder: Path) -> None:
    """It may be asked what that run costs, or be about to go on."""
    (folder / "run").mkdir()
    (folder / "run" / "manifest.json").write_text("{}")
    table(_config("output=run"))


def _file(folder: Path) -> Path:
    (folder / "taken").write_text("")
    return folder / "taken"


def _below_a_file(folder: Path) -> Path:
    return _file(folder) / "run"


def _in_use(folder: Path) -> Path:
    (folder / "used").mkdir()
    (folder / "used" / "a").write_text("")
    return folder / "used"


def _too_long(folder: Path) -> Path:
    return folder / ("n" * 300)


@pytest.mark.parametrize("make", [_file, _below_a_file, _in_use, _too_long])
def test_a_plan_refuses_an_output_that_a_run_cannot_have(
    folder: Path, make: Callable[[Path], Path]
) -> None:
    output = make(folder)
    with pytest.raises(TreerlError) as of_run:
        claim(output, "treerl")
    with pytest.raises(TreerlError) as of_plan:
        table(_config(f"output={output}"))
    assert (str(of_plan.value), of_plan.value.code) == (str(of_run.value), of_run.value.code)


def test_a_plan_makes_no_folder(folder: Path) -> None:
    (folder / "empty").mkdir()
    before = sorted(folder.rglob("*"))
    for output in ("new", "new/deep", "empty"):
        table(_config(f"output={output}"))
    assert sorted(folder.rglob("*")) == before
