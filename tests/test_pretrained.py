"""A model that cannot be loaded is one line: what was expected, what came, how to get it."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from test_backbones import CPU, family

from treerl.backbone.contract import Condition
from treerl.backbone.settings import PipelineSettings
from treerl.errors import InputError

NOTHING = Condition({})
TINY = Path(str(files("treerl") / "tiny" / "sd35"))
HUB_ID = "stabilityai/stable-diffusion-3.5-medium"


def refused(match: str, name: str = "sd35", **settings: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        family(name).load(PipelineSettings(**settings), CPU)
    assert "\n" not in str(caught.value)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoilt."""
    shutil.copytree(TINY, tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    for name in ("./nowhere", str(tmp_path / "nowhere"), "nowhere", "a/b/c"):
        refused(
            "expected a folder or a hub id such as owner/name, and it is neither$",
            model=name,
        )


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    refused(
        "^backbone.model: .* it has no model_index.json, which every folder", model=str(tmp_path)
    )


def test_another_familys_folder() -> None:
    refused(
        "^backbone.model: .* as FLUX.1: expected a FluxPipeline, it is a StableDiffusion3",
        "flux",
        model=str(TINY),
    )


@pytest.mark.parametrize("text", ["junk", "[]", '"text"'])
def test_an_index_that_is_junk(model: Path, text: str) -> None:
    (model / "model_index.json").write_text(text)
    refused(
        "^backbone.model: .* model_index.json (cannot be read|is not a mapping)", model=str(model)
    )


def test_a_folder_with_code_of_its_own_is_refused_and_not_run(model: Path) -> None:
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "transformer": ["mine", "Mine"]}))
    (model / "mine.py").write_text(f"open({str(model / 'ran')!r}, 'w')")
    refused(
        r"its transformer is code of its own \(mine\), which treerl never runs$", model=str(model)
    )
    assert not (model / "ran").exists()


@pytest.mark.parametrize("spoil", ["missing", "torn", "junk config"])
def test_weights_that_cannot_be_read(model: Path, spoil: str) -> None:
    weights, config = (
        model / "vae" / "diffusion_pytorch_model.safetensors",
        model / "vae" / "config.json",
    )
    if spoil == "missing":
        weights.unlink()
    elif spoil == "torn":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        config.write_text("junk")
    refused("^backbone.model: .* cannot be loaded as Stable Diffusion 3: ", model=str(model))


def answer(kind: type[Exception]) -> Exception:
    """An error of the hub's client, whose constructors differ from version to version."""
    made = kind.__new__(kind)
    Exception.__init__(made, "no")
    return made


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (GatedRepoError, rf"is gated: accept its licence at .*/{HUB_ID}, then `hf auth login`$"),
        (RevisionNotFoundError, r"has no revision 'v9'$"),
        (RepositoryNotFoundError, r"no such repository at .*, and no such folder$"),
        (EntryNotFoundError, r"has no model_index.json: name the one that holds it$"),
        (LocalEntryNotFoundError, rf"nor in the cache .* run `hf download {HUB_ID} --revision v9`"),
        (ConnectionError, rf"nor in the cache .* run `hf download {HUB_ID} --revision v9`"),
    ],
)
def test_what_the_hub_says_is_said_in_our_words(
    kind: type[Exception], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise answer(kind)

    monkeypatch.setattr(HfApi, "model_info", refuse)
    refused(
        f"^backbone.model: '{HUB_ID}' cannot be loaded as Stable Diffusion 3: .*{match}",
        model=HUB_ID,
        revision="v9",
    )


def test_without_a_network_it_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(
        "it is neither a folder nor in the cache .*, and https?://.* cannot be reached",
        model=HUB_ID,
    )


def test_a_family_without_a_tiny_model() -> None:
    refused(
        r"^backbone.model: Mochi 1 has no built-in tiny model \(there is one of: .*sd35", "mochi"
    )


def test_a_tiny_decoder_takes_the_place_of_the_autoencoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
        scaling_factor=1.0,
        shift_factor=0.0,
    ).save_pretrained(tmp_path)
    plain = family("sd35").load(PipelineSettings(), CPU)
    small = family("sd35").load(PipelineSettings(tiny_vae=str(tmp_path)), CPU)
    x = torch.randn(2, *plain.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert small.decode(x, NOTHING).shape == plain.decode(x, NOTHING).shape
        assert not torch.equal(small.decode(x, NOTHING), plain.decode(x, NOTHING))


def test_a_decoder_that_is_none_is_refused(tmp_path: Path) -> None:
    refused(
        r"^backbone.tiny_vae: .* cannot be loaded as an AutoencoderTiny: ", tiny_vae=str(tmp_path)
    )
    refused(
        r"^backbone.tiny_vae: expected null, as tiny autoencoders are of images",
        "wan",
        model="miniature",
        tiny_vae="x/y",
    )


@pytest.mark.parametrize("option", ["vae_slicing", "vae_tiling"])
def test_slices_and_tiles_decode_to_the_same_pictures(option: str) -> None:
    load = family("sd35").load
    plain = load(PipelineSettings(), CPU)
    other = load(replace(PipelineSettings(), **{option: True}), CPU)  # type: ignore[arg-type]
    x = torch.randn(3, *plain.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            other.decode(x, NOTHING), plain.decode(x, NOTHING), atol=1e-5, rtol=0
        )


def test_frames_are_for_videos() -> None:
    refused(
        r"^backbone.frames: expected null, as Stable Diffusion 3 makes images, got 5$", frames=5
    )
    refused(
        r"^backbone.frames: expected a multiple of \d+ and one more, got 6$",
        "wan",
        model="miniature",
        frames=6,
    )
