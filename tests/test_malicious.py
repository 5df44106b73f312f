"""Malicious models, adapters and weights of rewards: nothing of them is run."""

import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hostile import Place, change, place as place
from safetensors.torch import load_file
from test_backbones import CPU, family
from transformers import CLIPModel, CLIPTokenizer
from treerl.rewards import _weights  # type: ignore[import-not-found]

from treerl.backbone import adapter
from treerl.backbone.settings import PipelineSettings
from treerl.engine.task import Task
from treerl.errors import InputError

TINY = Path(str(files("treerl") / "tiny" / "sd35"))
Spoil = Callable[[Path, Place], None]
NETWORKS = ("transformer", "vae", "text_encoder")


def test_what_is_planted_would_be_seen(tmp_path: Path) -> None:
    """Or the other tests would say nothing."""
    here = Place(tmp_path)
    for run in (
        lambda: exec(here.code),
        lambda: pickle.loads(here.pickled),
        lambda: torch.load(tmp_path / "saved", weights_only=False),
    ):
        (tmp_path / "saved").write_bytes(here.saved)
        before = here.beside()
        run()
        assert here.marker.exists() and here.beside() != before
        here.marker.unlink()


def network_pickle(model: Path, place: Place) -> None:
    (path,) = (model / "vae").glob("*.safetensors")
    path.write_bytes(place.pickled)


def only_a_bin(model: Path, place: Place) -> None:
    (path,) = (model / "text_encoder").glob("*.safetensors")
    path.unlink()
    (path.parent / "pytorch_model.bin").write_bytes(place.saved)


def json_pickle(model: Path, place: Place) -> None:
    (model / "transformer" / "config.json").write_bytes(place.pickled)


def own_component(model: Path, place: Place) -> None:
    change(model / "model_index.json", scheduler=["mine", "Evil"])
    (model / "scheduler" / "mine.py").write_text(place.code)


def own_pipeline(model: Path, place: Place) -> None:
    change(model / "model_index.json", _class_name=["pipeline", "Evil"], custom_pipeline="pipeline")
    (model / "pipeline.py").write_text(place.code)


def nested_pipeline(model: Path, place: Place) -> None:
    change(model / "model_index.json", tokenizer=["diffusers", "DiffusionPipeline"])
    change(model / "tokenizer" / "model_index.json", _class_name=["mine", "Evil"])
    (model / "tokenizer" / "mine.py").write_text(place.code)


def named_like_the_library(model: Path, place: Place) -> None:
    (model / "scheduler" / "diffusers.py").write_text(place.code)


def own_processor(model: Path, place: Place) -> None:
    """Transformers asks on the terminal whether to run the parts of a processor."""
    change(model / "model_index.json", tokenizer=["transformers", "CLIPProcessor"])
    place_of = model / "tokenizer"
    own = {"AutoTokenizer": ["mine.Evil", "mine.Evil"], "AutoConfig": "mine.Evil"}
    own["AutoImageProcessor"] = "mine.Evil"
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        change(place_of / name, auto_map=own, tokenizer_class="Evil", model_type="evil")
    change(place_of / "preprocessor_config.json", image_processor_type="Evil")
    (place_of / "mine.py").write_text(place.code)


def automatic_class(model: Path, place: Place) -> None:
    own_processor(model, place)
    change(model / "model_index.json", tokenizer=["transformers", "AutoTokenizer"])


def kernel_of_the_hub(model: Path, place: Place) -> None:
    change(model / "text_encoder" / "config.json", attn_implementation="somebody/kernel@main")


def adapter_of_another_model(model: Path, place: Place) -> None:
    other = {"base_model_name_or_path": str(place.outside), "peft_type": "LORA"}
    change(model / "text_encoder" / "adapter_config.json", **other)
    (model / "text_encoder" / "adapter_model.bin").write_bytes(place.saved)


def shards(model: Path, name: str) -> None:
    """Indexes that take all tensors from another file."""
    for part in NETWORKS:
        (path,) = (model / part).glob("*.safetensors")
        weights = dict.fromkeys(load_file(path), name)
        change(path.with_name(f"{path.name}.index.json"), metadata={}, weight_map=weights)
        path.rename(path.with_name("other.safetensors"))


def shard_above(model: Path, place: Place) -> None:
    shards(model, "../vae/other.safetensors")


def shard_elsewhere(model: Path, place: Place) -> None:
    shards(model, str(place.outside / "precious"))


def shard_pickle(model: Path, place: Place) -> None:
    shards(model, "shard.bin")
    for part in NETWORKS:
        (model / part / "shard.bin").write_bytes(place.saved)


def own_classes(model: Path, place: Place) -> None:
    """What the concrete classes that the index names do not look at."""
    own = {"AutoModel": "mine.Evil", "AutoConfig": "mine.Evil"}
    change(model / "text_encoder" / "config.json", auto_map=own, trust_remote_code=True)
    own = {"AutoTokenizer": "mine.Evil"}
    change(model / "tokenizer" / "tokenizer_config.json", auto_map=own, tokenizer_class="Evil")
    change(model / "scheduler" / "scheduler_config.json", auto_map=own, _class_name="Evil")
    for part in ("text_encoder", "tokenizer", "scheduler", ""):
        for name in ("mine.py", "modeling_mine.py", "__init__.py"):
            (model / part / name).write_text(place.code)


def template(model: Path, place: Place) -> None:
    escape = "{{ cycler.__init__.__globals__.os.system('touch " + str(place.marker) + "') }}"
    (model / "tokenizer" / "chat_template.jinja").write_text(escape)
    change(model / "tokenizer" / "tokenizer_config.json", chat_template=escape)


REFUSED: dict[str, tuple[Spoil, str]] = {
    "pickle named safetensors": (network_pickle, "vae: diffusion_pytorch_model.safetensors"),
    "pickle instead of safetensors": (only_a_bin, "it has no safetensors file"),
    "pickle named json": (json_pickle, "config.json cannot be read"),
    "component of its own": (own_component, "code of its own"),
    "pipeline of its own": (own_pipeline, "expected a StableDiffusion3Pipeline"),
    "pipeline within": (nested_pipeline, "its tokenizer is a whole pipeline"),
    "file named like a library": (named_like_the_library, "custom code"),
    "processor of its own": (own_processor, "names code of its own"),
    "automatic class": (automatic_class, "names code of its own"),
    "kernel of the hub": (kernel_of_the_hub, "names code of the hub"),
    "adapter of another model": (adapter_of_another_model, "leads to another model"),
    "shard above": (shard_above, "expected names of safetensors files beside it"),
    "shard elsewhere": (shard_elsewhere, "expected names of safetensors files beside it"),
    "shard that is a pickle": (shard_pickle, "expected names of safetensors files beside it"),
}


def load(place: Place, spoil: Spoil) -> None:
    shutil.copytree(TINY, "model")
    spoil(Path("model"), place)
    backbone = family("sd35").load(PipelineSettings(model="model"), CPU)
    backbone.encode([Task("a cat")])


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_folder_is_refused(name: str, place: Place) -> None:
    spoil, match = REFUSED[name]
    with pytest.raises(InputError, match=match) as caught:
        load(place, spoil)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("spoil", [own_classes, template], ids=["own classes", "template"])
def test_code_in_a_model_folder_is_left_alone(spoil: Spoil, place: Place) -> None:
    load(place, spoil)


@pytest.mark.parametrize("name", [adapter.FILE, "transformer/model.safetensors", "adapter.bin"])
def test_an_adapter_that_is_a_pickle_is_refused(name: str, place: Place) -> None:
    path = Path("trained") / name
    path.parent.mkdir(parents=True)
    path.write_bytes(place.saved)
    change(path.parent / "adapter_config.json", auto_mapping={"parent_library": "mine"})
    Path("mine.py").write_text(place.code)
    with pytest.raises(InputError, match=r"^backbone\.adapter: "):
        family("sd35").load(PipelineSettings(), CPU).restore(Path("trained"))


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.bin"])
def test_weights_of_a_reward_that_are_a_pickle_are_refused(name: str, place: Place) -> None:
    for content in (place.saved, place.pickled):
        Path(name).write_bytes(content)
        with pytest.raises(InputError, match=r"^its weights cannot be read from"):
            _weights.tensors(Path(name), "its weights")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "mine.py"])
def test_a_tower_of_a_reward_runs_nothing(name: str, place: Place) -> None:
    own = {"AutoModel": "mine.Evil", "AutoTokenizer": ["mine.Evil", "mine.Evil"]}
    Path("tower").mkdir()
    change(Path("tower/config.json"), auto_map=own, model_type="clip")
    change(Path("tower/tokenizer_config.json"), auto_map=own, tokenizer_class="Evil")
    if name == "adapter_model.bin":
        change(Path("tower/adapter_config.json"), base_model_name_or_path=str(place.outside))
    content = place.code.encode() if name == "mine.py" else place.saved
    Path("tower", name).write_bytes(content)
    with pytest.raises(InputError, match=r"^its tower "):
        _weights.pretrained(CLIPModel, "tower", "its tower", None, "")
    with suppress(InputError):
        _weights.pretrained(CLIPTokenizer, "tower", "its words", None, "")
