"""A model folder of which something is wrong ends in one line, quickly, never half loaded."""

import json
import os
import shutil
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from test_backbones import CPU, family
from torch import Tensor

from treerl.backbone.settings import PipelineSettings
from treerl.errors import InputError

TINY = Path(str(files("treerl") / "tiny" / "sd35"))
Spoil = Callable[[dict[str, Tensor]], Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoilt."""
    shutil.copytree(TINY, tmp_path / "model")
    return tmp_path / "model"


def refused(match: str, **settings: Any) -> str:
    began = time.perf_counter()
    with pytest.raises(InputError, match=match) as caught:
        family("sd35").load(PipelineSettings(**settings), CPU)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1000
    assert time.perf_counter() - began < 20
    return message


def weights(folder: Path, spoil: Spoil) -> None:
    """Change the tensors of a network's only file."""
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    spoil(tensors)
    save_file(tensors, path, {"format": "pt"})


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    described = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(described | values), encoding="utf-8")


def remove(tensors: dict[str, Tensor]) -> None:
    del tensors[max(tensors)]


def rename(tensors: dict[str, Tensor]) -> None:
    tensors["other.name"] = tensors.pop(max(tensors))


def add(tensors: dict[str, Tensor]) -> None:
    tensors["foreign.tensor"] = torch.zeros(2)


def reshape(tensors: dict[str, Tensor]) -> None:
    tensors[max(tensors)] = torch.zeros(3, 5, 7)


def whole(tensors: dict[str, Tensor]) -> None:
    tensors[max(tensors)] = tensors[max(tensors)].to(torch.int8)


def imaginary(tensors: dict[str, Tensor]) -> None:
    tensors[max(tensors)] = tensors[max(tensors)].to(torch.complex64)


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2", "transformer", "vae"])
@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (remove, "it lacks {name}$"),
        (rename, "it lacks {name}; it has foreign other.name$"),
        (add, "it has foreign foreign.tensor$"),
        (reshape, "{name}"),
        (whole, "expected floating-point numbers, got I8: {name}$"),
        (imaginary, "expected floating-point numbers, got C64: {name}$"),
    ],
)
def test_no_tensor_is_invented_and_none_is_ignored(
    model: Path, component: str, spoil: Spoil, match: str
) -> None:
    names: list[str] = []
    weights(model / component, lambda tensors: names.append(max(tensors)))
    weights(model / component, spoil)
    refused(rf"{component}: .*{match.format(name=names[0])}", model=str(model))


@pytest.mark.parametrize("spoil", [remove, rename, add, reshape])
def test_a_tiny_autoencoder_is_held_to_the_same(tmp_path: Path, spoil: Spoil) -> None:
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
    ).save_pretrained(tmp_path)
    family("sd35").load(PipelineSettings(tiny_vae=str(tmp_path)), CPU)
    weights(tmp_path, spoil)
    refused("^backbone.tiny_vae: ", tiny_vae=str(tmp_path))


@pytest.mark.parametrize("component", ["vae", "tokenizer", "scheduler", "text_encoder"])
def test_a_missing_component_is_named(model: Path, component: str) -> None:
    shutil.rmtree(model / component)
    refused(rf": {component}: there is no such folder$", model=str(model))


FILES = [
    "vae/diffusion_pytorch_model.safetensors",
    "transformer/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "tokenizer_2/tokenizer_config.json",
]


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (pointer, " is a Git LFS pointer"),
        (os.mkfifo, ": expected a plain file"),
        (os.mkdir, ": expected a plain file"),
    ],
)
def test_what_is_no_file_is_not_taken_for_one(
    model: Path, file: str, make: Callable[[Path], None], match: str
) -> None:
    (model / file).unlink()
    make(model / file)
    refused(": ".join(file.split("/")) + match, model=str(model))


@pytest.mark.parametrize("kept", [["tokenizer_config.json"], ["vocab.json"], []])
def test_a_tokenizer_without_a_vocabulary_is_refused(model: Path, kept: list[str]) -> None:
    (model / "tokenizer" / "vocab.json").write_text("{}")
    for path in (model / "tokenizer").iterdir():
        if path.name not in kept:
            path.unlink()
    refused("tokenizer: expected tokenizer.json, or vocab.json and merges.txt", model=str(model))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (["diffusers", "AutoencoderKLL"], "its vae is a 'AutoencoderKLL', which diffusers .* not"),
        (["diffusers", "UNet2DModel"], "vae"),
        (["diffusers", "FlowMatchEulerDiscreteScheduler"], "vae|sd35|Stable"),
        (["diffusers"], "its vae is a 'None'"),
        (["diffusers", 5], "its vae is a '5'"),
        (["os", "system"], r"its vae is code of its own \(os\), which treerl never runs"),
        ([], "its vae is code of its own"),
        (["diffusers", "\x1b[31mred"], "its vae is a "),
    ],
)
def test_a_component_of_a_wrong_class_is_refused(model: Path, value: Any, match: str) -> None:
    change(model / "model_index.json", vae=value)
    refused(match, model=str(model))


def test_a_denoiser_of_another_class_is_refused(model: Path) -> None:
    other = Path(str(files("treerl") / "tiny" / "flux" / "transformer"))
    shutil.rmtree(model / "transformer")
    shutil.copytree(other, model / "transformer")
    change(model / "model_index.json", transformer=["diffusers", "FluxTransformer2DModel"])
    refused("transformer: expected a SD3Transformer2DModel, it is a Flux", model=str(model))


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/tokenizer.json",
    ],
)
@pytest.mark.parametrize("text", [DEEP, "[]", "junk", '"\x1b[2Jtext"'], ids=lambda text: text[:5])
def test_a_configuration_that_is_none_is_refused(model: Path, name: str, text: str) -> None:
    assert (model / name).is_file()
    (model / name).write_text(text, encoding="utf-8")
    refused("^backbone.model: ", model=str(model))


@pytest.mark.parametrize(
    ("name", "values", "match"),
    [
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "num_train_timesteps"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "x"}, "num_train_timesteps"),
        ("transformer/config.json", {"num_layers": 10**9}, "num_layers = 1000000000, and"),
        ("transformer/config.json", {"num_layers": 10**400}, "an integer of more than 50 digits"),
        ("transformer/config.json", {"num_layers": "many"}, "transformer|Stable"),
        ("transformer/config.json", {"sample_size": 10**9}, "sample_size: expected at most"),
        ("transformer/config.json", {"in_channels": -1}, "Stable"),
        ("text_encoder/config.json", {"num_hidden_layers": 10**9}, "num_hidden_layers = 1000"),
        ("text_encoder/config.json", {"hidden_size": "wide"}, "Stable"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": -5}, "expected a number >= 1"),
        ("vae/config.json", {"scaling_factor": "x"}, "scaling_factor: expected numbers, got 'x'"),
        (
            "vae/config.json",
            {"scaling_factor": None},
            "scaling_factor: expected a number, got null",
        ),
        ("vae/config.json", {"shift_factor": float("nan")}, "shift_factor: expected numbers"),
        ("vae/config.json", {"latents_mean": [0, None]}, "latents_mean: expected numbers"),
        ("vae/config.json", {"block_out_channels": 7}, "Stable"),
        ("vae/config.json", {"layers_per_block": 10**9}, "layers_per_block = 1000"),
    ],
)
def test_absurd_values_are_refused(
    model: Path, name: str, values: dict[str, Any], match: str
) -> None:
    change(model / name, **values)
    refused(match, model=str(model))


def test_names_in_a_model_folder_reach_no_terminal_as_they_are(model: Path, capfd: Any) -> None:
    def colour(tensors: dict[str, Tensor]) -> None:
        tensors["\x1b[31mred\u202e"] = torch.zeros(1)

    weights(model / "vae", colour)
    change(model / "vae" / "config.json", **{"\x1b[31mred": 1})
    message = refused("it has foreign ", model=str(model))
    assert r"\x1b[31mred\u202e" in message
    out, err = capfd.readouterr()
    assert "\x1b[31mred" not in out + err
