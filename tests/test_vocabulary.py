"""A tokenizer that makes what its text encoder cannot read is refused, not met in a run."""

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from test_backbones import CPU, family
from transformers import AutoTokenizer, T5Config, T5EncoderModel

from treerl.backbone import tokenizer
from treerl.backbone.settings import PipelineSettings
from treerl.backbone.vocabulary import refuse_misfits
from treerl.errors import InputError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoilt."""
    shutil.copytree(Path(str(files("treerl") / "tiny" / "sd35")), tmp_path / "model")
    return tmp_path / "model"


def refused(model: Path, match: str) -> None:
    settings = PipelineSettings(model=str(model))
    with pytest.raises(InputError, match=match):
        family("sd35").load(settings, CPU)
    with pytest.raises(InputError, match=match):
        family("sd35").footprint(settings)


@pytest.mark.parametrize(("length", "got"), [(100_000, "100000"), (None, r"1e\+30"), (11, "11")])
def test_more_words_than_positions_are_refused(model: Path, length: Any, got: str) -> None:
    path = model / "tokenizer_2" / "tokenizer_config.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(described | {"model_max_length": length}), encoding="utf-8")
    words = "tokenizer_2: model_max_length: expected at most 10, as the CLIPTextModelWithProjection"
    refused(model, f"{words} has no more positions, got {got}$")


def test_a_word_that_the_encoder_has_not_is_refused(model: Path) -> None:
    words = AutoTokenizer.from_pretrained(model / "tokenizer")
    known = len(words)
    words.add_tokens(["a-word-of-another-model"])
    words.save_pretrained(model / "tokenizer")
    refused(
        model, rf"tokenizer: expected ids below {known}, as the \w+ has no more words, got {known}"
    )


@pytest.mark.parametrize(("room", "fits"), [(0, True), (5, True), (-1, False)])
def test_an_encoder_without_positions_takes_any_length(room: int, fits: bool) -> None:
    words = tokenizer.make("T5TokenizerFast", 10**6)
    size = len(words) + room
    encoder = T5EncoderModel(T5Config(vocab_size=size, d_model=8, d_kv=4, d_ff=8, num_layers=1))
    parts = {"tokenizer_3": words, "text_encoder_3": encoder, "vae": None}
    if fits:
        refuse_misfits(parts, "it")
        return
    with pytest.raises(InputError, match=f"^it: tokenizer_3: expected ids below {size}, as the T5"):
        refuse_misfits(parts, "it")
