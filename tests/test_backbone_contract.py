# mypy: disable-error-code="misc"
"""What a stranger's backbone must have is asked when its class is loaded, not after training."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_torch import Points
from test_backbones import CPU, FAMILIES, family
from test_image_conditioned import FAMILIES as CONDITIONED, folder

import treerl
from treerl.backbone import random_weights
from treerl.backbone.contract import Backbone, Condition, Footprint
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.settings import PipelineSettings
from treerl.config.resolve import resolve
from treerl.engine.task import Task
from treerl.errors import InputError

SD35: type[Any] = family("sd35")


def changed(base: type[Any], **attributes: Any) -> type[Any]:
    """A subclass with other attributes."""
    return type("Mine", (base,), attributes)


@dataclass
class Loose:
    """Settings that know nothing of devices."""

    hidden: int = 8


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (changed(Points, title=None), "backbone Mine: title: expected a class attribute"),
        (changed(Points, title=""), "backbone Mine: title: "),
        (changed(Points, modality="pictures"), "modality: expected images or videos"),
        (changed(Points, lora_targets="first"), "lora_targets: expected a tuple of names"),
        (changed(Points, Settings=Loose), "Settings: expected a dataclass that extends"),
        (changed(Backbone, title="x"), "backbone Mine: it has no decode, denoisers, device, "),
        (changed(PipelineBackbone, title="x"), "backbone Mine: it has no default_size, encode_"),
        (changed(SD35, name=None), "backbone Mine: name: expected a class attribute"),
        (changed(SD35, pipeline_class=None), "pipeline_class: expected a class attribute"),
        (changed(SD35, pipeline_class="NoPipeline"), "expected a class of diffusers .*, got 'NoP"),
    ],
)
def test_what_a_class_lacks_is_named(kind: type[Any], match: str) -> None:
    with pytest.raises(InputError, match=match) as error:
        kind.check_class()
    assert "\n" not in str(error.value)


def test_a_class_is_checked_when_it_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from treerl.backbone.contract import Backbone\nclass Mine(Backbone):\n    pass\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match="backbone Mine: it has no "):
        treerl.load("backbones", f"{file}:Mine")


@pytest.mark.parametrize("multiple", [8, (8,), (8, 1, 1), ("8", 1), (0, 1), None])
def test_a_size_multiple_of_anything_but_two_numbers_is_refused(multiple: Any) -> None:
    with pytest.raises(InputError, match="size_multiple: expected two numbers, of pixels and"):
        changed(SD35, size_multiple=multiple).load(PipelineSettings(), CPU)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_task_has_a_negative_prompt_of_its_own(name: str) -> None:
    backbone = family(name).load(PipelineSettings(model="miniature"), CPU)
    together = backbone.encode([Task("a cat"), Task("a cat", negative="blur"), Task("a cat")])
    alone = backbone.encode([Task("a cat", negative="blur")])
    guided = [key for key in together.tensors if key.startswith("negative_")]
    assert bool(guided) != backbone.guidance_embedded
    for key in guided:
        torch.testing.assert_close(together[key][1:2], alone[key], atol=1e-5, rtol=1e-5)
        assert torch.equal(together[key][0], together[key][2])
    texts = [key for key in guided if together[key].is_floating_point()]
    assert all(not torch.equal(together[key][0], together[key][1]) for key in texts)


def test_a_condition_without_a_negative_half_is_the_same_in_both() -> None:
    text = torch.arange(6.0).view(2, 3)
    image = torch.ones(2, 4)
    both = Condition.of({"text": text, "image": image}, {"text": -text}).for_cfg()
    assert torch.equal(both["text"], torch.cat([-text, text]))
    assert torch.equal(both["image"], torch.cat([image, image]))
    assert set(both.tensors) == {"text", "image"}


def test_what_a_plan_asks_of_a_folder_is_what_is_loaded(tmp_path: Path) -> None:
    for kind, shipped in [(SD35, "sd35"), *CONDITIONED]:
        place = folder(kind, shipped, tmp_path / kind.name)
        height, width, frames = random_weights.sizes(family(shipped))[0]
        settings = PipelineSettings(model=str(place), height=height, width=width)
        if kind.modality == "videos":
            settings = replace(settings, frames=frames)
        backbone = kind.load(settings, CPU)
        expected = 0
        for module in backbone.modules.values():
            expected += sum(4 * tensor.numel() for tensor in module.parameters())
        rows = 1 if kind.guidance_embedded else 2
        assert kind.footprint(settings) == Footprint(backbone.shape, expected, rows)
        assert backbone.describe()["latent_shape"] == list(backbone.shape)


def test_a_plain_backbone_says_nothing_before_it_is_loaded() -> None:
    assert Points.footprint(Points.Settings()) == Footprint(None, None, 1)
    file = Path(__file__).parent / "plain_torch.py"
    flags = {"backbone.name": f"{file}:Points", "rewards": {"jpeg": 1.0}}
    chosen = resolve(None, flags, ["backbone.hidden=5"], allow_plugins=True)
    assert asdict(chosen.backbone.build()) == asdict(Points.Settings(hidden=5))


def family_of(yaml: str, place: Path) -> type[Any]:
    """A family whose architecture file says this."""
    file = place / "mine.py"
    file.write_text(
        "from treerl.backbones.sd35 import SD35\nclass Mine(SD35):\n    name = 'mine'\n",
        encoding="utf-8",
    )
    (place / "architectures").mkdir()
    (place / "architectures" / "mine.yaml").write_text(yaml, encoding="utf-8")
    kind: type[Any] = treerl.load("backbones", f"{file}:Mine")
    return kind


WHOLE = "published:\n  tokenizer:\n    {}\nminiature: {{}}\nsizes: [[64, 64]]\n"


@pytest.mark.parametrize(
    ("yaml", "match"),
    [
        ("published: [a", r"^mine.yaml:\d+: expected"),
        ("[]", "^mine.yaml: expected published, miniature and sizes"),
        ("published: {}\nsizes: []\n", "^mine.yaml: miniature: expected a dict"),
        ("published: {}\nminiature: {x: {a: 1}}\nsizes: [[64, 64]]\n", "miniature.x: expected one"),
        (WHOLE.format("length: 3"), "^mine.yaml: tokenizer.class: expected the name of a class"),
        (WHOLE.format("class: CLIPTokenizer"), "tokenizer.model_max_length: expected a number"),
        (WHOLE.format("{class: X, model_max_length: 7}"), "expected a tokenizer of CLIPTokenizer"),
        (WHOLE.replace("tokenizer", "vae").format("class: NoVae"), "vae.class: neither diffusers"),
        (
            WHOLE.replace("tokenizer", "vae").format("{class: AutoencoderKL, widths: 3}"),
            "^mine.yaml: vae: TypeError: ",
        ),
        ("published: {}\nminiature: {}\nsizes: [64]\n", "sizes: expected height, width and"),
    ],
)
def test_a_fault_in_an_architecture_file_is_one_line(yaml: str, match: str, tmp_path: Path) -> None:
    kind = family_of(yaml, tmp_path)
    with pytest.raises(InputError, match=match) as error:
        random_weights.sizes(kind)
        random_weights.build(kind, "miniature", CPU, torch.float32)
    assert "\n" not in str(error.value)
