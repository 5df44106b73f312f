"""A model in parts on two processes trains, is kept and fails as one that each holds whole."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from plain_torch import Points
from rich.console import Console
from safetensors.torch import load_file
from sharded import CASES, RUN, SETTINGS, Told, settings_of, told, trials
from torch import Tensor

from treerl import registry
from treerl.backbone.blocks import blocks
from treerl.backbone.settings import PipelineSettings
from treerl.config.resolve import resolve
from treerl.errors import InputError
from treerl.run import shard
from treerl.run.assemble import build
from treerl.run.export import export
from treerl.run.start import start
from treerl.run.stored import Stored

CPU = torch.device("cpu")
# sums in another order, or follow from such gradients
_ROUNDED = {"loss", "grad_norm"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shard") / "ranks"
    trials(folder)
    return folder


def apart(one: Tensor, other: Tensor) -> float:
    """How far apart two tensors are, relative to the norm of the first."""
    distance = (one.double() - other.double()).norm() / one.double().norm().clamp(min=1e-12)
    return float(distance)


def below(seen: Told, prefix: str) -> Told:
    return {name.removeprefix(prefix): x for name, x in seen.items() if name.startswith(prefix)}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_model_in_parts_trains_as_a_whole_one(case: str, folder: Path) -> None:
    for one, parts in zip(told(folder, case, "whole"), told(folder, case, "parts"), strict=True):
        assert torch.equal(one["before"], parts["before"])
        for name, tensor in below(one, "metric.0.").items():
            rounded = 1e-6 if name in _ROUNDED else 0.0
            close = pytest.approx(tensor.item(), rel=rounded, abs=rounded, nan_ok=True)
            assert parts[f"metric.0.{name}"].item() == close, name
        gradients = below(one, "gradient.")
        assert gradients.keys() == below(parts, "gradient.").keys() and gradients
        for name, tensor in gradients.items():
            assert apart(tensor, parts[f"gradient.{name}"]) <= 1e-6, name
        for name, tensor in below(one, "weight.").items():
            assert apart(tensor, parts[f"weight.{name}"]) <= 1e-6, name


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_each_process_holds_half_and_makes_every_forward(case: str, folder: Path) -> None:
    first, second = told(folder, case, "parts")
    assert below(first, "forwards.") == below(second, "forwards.")
    assert first["all"] == first["held"] + second["held"]
    for seen in (first, second):
        assert 0.45 * seen["all"] <= seen["held"] <= 0.55 * seen["all"]


@pytest.mark.slow
def test_whole_models_make_the_forwards_that_each_process_needs(folder: Path) -> None:
    """So that there is something to fill up: the cases are what they are for."""
    first, second = (below(seen, "forwards.") for seen in told(folder, "idle", "whole"))
    assert int(first["transformer"]) == 0 < int(second["transformer"])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["lora", "checkpointed", "experts"])
def test_what_is_saved_is_the_whole_that_one_process_reads(case: str, folder: Path) -> None:
    """As for any backbone: a LoRA, a folder of diffusers, one for each of two networks."""
    saved = folder / f"{case}.saved"
    weights = below(told(folder, case, "parts")[0], "weight.")
    if case == "lora":
        name = str(SETTINGS["backbone.model"])
        backbone = registry.load("backbones", "sd35").load(PipelineSettings(model=name), CPU)
        backbone.restore(saved)
        parameters = dict(backbone.denoisers["transformer"].named_parameters())
        for name, tensor in weights.items():
            assert torch.equal(parameters[name.removeprefix("transformer.")], tensor), name
        return
    for module in {name.partition(".")[0] for name in weights}:
        written = load_file(saved / module / "diffusion_pytorch_model.safetensors")
        config = json.loads((saved / module / "config.json").read_text())
        assert not config["_class_name"].startswith("FSDP")
        assert written.keys() == below(weights, f"{module}.").keys()
        for name, tensor in written.items():
            assert torch.equal(tensor, weights[f"{module}.{name}"]), name


def tensors_of(run: Path, iteration: int) -> Told:
    return dict(Stored(run / f"checkpoints/iteration-{iteration:06d}/training"))


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_last_bit(folder: Path) -> None:
    outcomes = [json.loads((folder / f"outcomes.{rank}").read_text()) for rank in range(2)]
    for said in outcomes:
        assert said["straight"] == said["resumed"] == "done"
        assert said["stopped"] == "Stopped 143: stopped by signal 15"
    straight = tensors_of(folder / "straight", 2)
    resumed = tensors_of(folder / "stopped", 2)
    assert straight.keys() == resumed.keys()
    assert sum(name.endswith("/exp_avg") for name in straight) > 100
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.slow
def test_moments_are_kept_by_the_process_that_has_them(folder: Path) -> None:
    """Each writes its half; nobody ever holds the moments of the whole model."""
    training = folder / "straight/checkpoints/iteration-000002/training"
    together = load_file(training / "tensors.safetensors")
    halves = [load_file(training / f"part-0000{rank}-of-00002.safetensors") for rank in range(2)]
    assert not any(name.endswith("/exp_avg") for name in together)
    assert halves[0].keys() == halves[1].keys()
    whole = tensors_of(folder / "straight", 2)
    for name, half in halves[0].items():
        assert len(half) + len(halves[1][name]) == len(whole[name]), name
    sizes = [sum(half.numel() for half in each.values()) for each in halves]
    assert 0.45 <= sizes[0] / sum(sizes) <= 0.55


@pytest.mark.slow
def test_one_process_goes_on_with_the_whole_model(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "left", tmp_path / "run")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = resolve(None, RUN | {"output": str(tmp_path / "run")}, [])
    start(config, Console(quiet=True), lambda path: path, resume="auto")
    torch.set_num_threads(threads)
    straight = tensors_of(folder / "straight", 2)
    for name, tensor in below(tensors_of(tmp_path / "run", 2), "weights/").items():
        assert apart(straight[f"weights/{name}"], tensor) <= 1e-6, name


@pytest.mark.slow
def test_a_run_in_parts_is_exported(folder: Path, tmp_path: Path) -> None:
    assert export(folder / "straight", tmp_path / "out").difference == 0.0


@pytest.mark.slow
def test_a_run_in_parts_is_rolled_back(folder: Path) -> None:
    for rank in range(2):
        said = json.loads((folder / f"outcomes.{rank}").read_text())
        assert said["rolled back"] == "done"
    state = folder / "rolled back/checkpoints/iteration-000002/training/state.json"
    assert json.loads(state.read_text())["rollbacks"] == 1


@pytest.mark.slow
def test_a_process_that_fails_is_named(folder: Path) -> None:
    first, second = (json.loads((folder / f"outcomes.{rank}").read_text()) for rank in range(2))
    assert first["lost"] == "PeerError 5: rank 1: the second one"
    assert second["lost"] == "NumericsError 3: the second one"
    manifest = json.loads((folder / "lost/manifest.json").read_text())
    assert manifest["status"] == "failed"


def test_one_process_is_told_that_it_holds_the_whole_model(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "run") | {"parallel.shard": True}
    with pytest.raises(InputError, match=r"^parallel.shard: expected false, as one process"):
        build(resolve(None, settings, []))


def test_a_network_without_blocks_is_refused() -> None:
    net = Points(8, CPU).denoisers["net"]
    with pytest.raises(InputError, match=r"^parallel.shard: .* as Net is no transformer"):
        shard.cut(net, cast(Any, None))


def test_a_backbone_that_cannot_move_says_so() -> None:
    points = Points(8, CPU)
    points.move(CPU)
    with pytest.raises(InputError, match=r"^parallel.shard: .* as backbone Points has no move"):
        points.move(torch.device("meta"))


@pytest.mark.parametrize("name", registry.announced("backbones"))
def test_every_family_has_blocks(name: str) -> None:
    backbone = registry.load("backbones", name).load(PipelineSettings(model="miniature"), CPU)
    for module in backbone.denoisers.values():
        found = blocks(module)
        assert len(found) > 1
        for place, block in enumerate(found):  # no block is cut before those in it
            assert not any(block in list(later.modules())[1:] for later in found[:place])
