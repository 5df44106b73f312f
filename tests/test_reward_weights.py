"""Weight files that are malicious, broken, cut or of another model: one line, nothing runs."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openclip
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_image_reward import blip
from test_learned_rewards import clip as clip_folder, reward
from torch import Tensor

from treerl.backbone import tokenizer
from treerl.errors import InputError

clip = clip_folder  # the fixture
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
SIZES = [24, 1024, 128, 64, 16, 1]
PLACES = ["layers.0", "layers.2", "layers.4", "layers.6", "layers.7"]


class Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("pwned",))


def head() -> dict[str, Tensor]:
    """The tensors of an aesthetic predictor."""
    state = {}
    for place, before, after in zip(PLACES, SIZES, SIZES[1:], strict=False):
        state[f"{place}.weight"] = torch.randn(after, before)
        state[f"{place}.bias"] = torch.randn(after)
    return state


def clip_tokenizer(folder: Path) -> None:
    tokenizer.make("CLIPTokenizer", 77).save_pretrained(folder)
    (folder / "config.json").write_text("{}")


def files(name: str, folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """A good weight file of a reward, its tensors, and the fields that name it."""
    if name == "hps":
        clip_tokenizer(folder)
        state = openclip.Towers().state_dict()
        fields: dict[str, Any] = {"tokenizer": str(folder)}
    elif name == "imagereward":
        _, _, state, _ = blip(folder)
        state |= {f"mlp.{key}": value for key, value in mlp().items()}
        fields = {"tokenizer": str(folder)}
    else:
        state = head()
        fields = {}
    path = folder / "weights.pt"
    torch.save(state, path)
    return path, state, fields | {"model": str(path)}


def mlp() -> dict[str, Tensor]:
    state = head()
    state["layers.0.weight"] = torch.randn(1024, 64)
    return state


def refused(name: str, fields: dict[str, Any]) -> str:
    with pytest.raises((InputError, ValueError)) as caught:
        reward(name, **fields)
    text = str(caught.value)
    assert text.isprintable() and 20 < len(text) < 700
    return text


BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda good: b"", "cannot be read from"),
    "truncated": (lambda good: good[: len(good) // 2], "cannot be read from"),
    "flipped": (lambda good: good[:100] + bytes(400) + good[500:], "cannot be read from"),
    "text": (lambda good: b"hello\n" * 100, "cannot be read from"),
    "Git LFS pointer": (lambda good: POINTER, "is a Git LFS pointer"),
    "pickle with code": (lambda good: pickle.dumps(Evil()), "cannot be read from"),
    "pickle of a list": (lambda good: pickle.dumps([1]), "cannot be read from"),
    "deeply nested pickle": (lambda good: b"(" * 10**5 + b".", "cannot be read from"),
}


@pytest.mark.parametrize("name", ["hps", "imagereward", "aesthetic"])
@pytest.mark.parametrize("kind", BYTES)
def test_bytes_that_are_no_weights_are_refused(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, _, fields = files(name, tmp_path)
    spoil, words = BYTES[kind]
    path.write_bytes(spoil(path.read_bytes()))
    assert words in refused(name, fields)
    assert not (tmp_path / "pwned").exists()


def without(state: dict[str, Tensor], word: str) -> dict[str, Tensor]:
    gone = next(key for key in state if word in key)
    return {key: value for key, value in state.items() if key != gone}


def changed(state: dict[str, Tensor], word: str, value: Tensor) -> dict[str, Tensor]:
    key = next(key for key in state if word in key)
    return state | {key: value}


STATES: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "nothing": lambda state: {},
    "a list": lambda state: list(state.values()),
    "numbers for names": lambda state: dict(enumerate(state.values())),
    "code beside tensors": lambda state: state | {"x": Evil()},
    "a missing weight": lambda state: without(state, "weight"),
    "a missing bias": lambda state: without(state, "bias"),
    "one tensor more": lambda state: state | {"layers.99.weight": torch.zeros(1)},
    "a name of a billion layers": lambda state: (
        state | {f"blip.visual_encoder.blocks.{10**12}.norm1.bias": torch.zeros(64)}
    ),
    "escapes in a name": lambda state: state | {"\x1b[2J\n": torch.zeros(1)},
    "another size": lambda state: changed(state, "weight", torch.zeros(3, 5)),
    "no dimension": lambda state: changed(state, "weight", torch.tensor(1.0)),
    "whole numbers": lambda state: {key: value.long() for key, value in state.items()},
    "complex numbers": lambda state: {key: value * 1j for key, value in state.items()},
    "sparse": lambda state: changed(state, "weight", torch.eye(4).to_sparse()),
    "meta": lambda state: {key: value.to("meta") for key, value in state.items()},
}


@pytest.mark.parametrize("name", ["hps", "imagereward", "aesthetic"])
@pytest.mark.parametrize("kind", STATES)
def test_tensors_of_another_model_are_refused_by_name(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, state, fields = files(name, tmp_path)
    torch.save(STATES[kind](state), path)
    if name == "imagereward" and kind in ("one tensor more", "escapes in a name"):
        reward(name, **fields)  # its file may hold more than its three parts
        return
    assert f"reward {name}: its weights" in refused(name, fields)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["hps", "imagereward"])
def test_the_file_before_it_is_spoilt_is_good(name: str, tmp_path: Path) -> None:
    _, _, fields = files(name, tmp_path)
    reward(name, **fields)


@pytest.mark.parametrize("name", ["clip", "pickscore"])
@pytest.mark.parametrize(
    "kind", ["missing", "foreign", "resized", "truncated", "pointer", "config", "nested", "list"]
)
def test_a_model_folder_is_whole_or_refused(
    kind: str, name: str, clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for path in clip.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = folder / "model.safetensors"
    state = load_file(weights)
    key = "text_model.encoder.layers.0.mlp.fc1.weight"
    if kind == "missing":
        del state[key]
    elif kind == "foreign":
        state = {f"x.{name}": value for name, value in state.items()}
    elif kind == "resized":
        state[key] = torch.zeros(3, 5)
    save_file(state, weights, {"format": "pt"})
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "pointer":
        weights.write_bytes(POINTER)
    elif kind == "config":
        (folder / "config.json").write_text("{")
    elif kind == "nested":
        (folder / "config.json").write_text("[" * 100_000)
    elif kind == "list":
        (folder / "config.json").write_text(json.dumps([1]))
    text = refused(name, {"model": str(folder)})
    assert text.startswith(f"reward {name}: its model")
    if kind == "missing":
        assert f"lacks {key} in" in text


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "meta2"])
def test_a_device_that_cannot_be_used_is_refused(device: str, tmp_path: Path) -> None:
    path, _, _ = files("aesthetic", tmp_path)
    says = f"^rewards.aesthetic.device: {device} cannot be used: "
    with pytest.raises(InputError, match=says):
        reward("aesthetic", device=device, model=str(path))
