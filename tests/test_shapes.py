"""The world of shapes: its captions, its renderer, and what its judge says of images."""

import dataclasses
import itertools
from collections.abc import Callable
from importlib.resources import files

import pytest
import torch
from diffusers import AutoencoderKL
from fooling import FOOLING, noise, second, stripes
from torch import Tensor

import treerl
from treerl.engine.task import Samples, Task
from treerl.errors import InputError
from treerl.reward.contract import Reward
from treerl.run import tasks as prompts
from treerl.toy.drawing import COLOURS, SHAPES, blank
from treerl.toy.shapes import PLACES, ShapeCaption, render

CAPTIONS = [caption for caption in ShapeCaption.every() for _ in range(5)]
TEXTS = [caption.text for caption in CAPTIONS]
FEW = TEXTS[::5]
FIELDS = {"colour": "colour", "shape": "shape", "place": "where"}  # of a caption, by measure


@pytest.fixture(scope="module")
def judge() -> Reward:
    made: Reward = treerl.load("rewards", "shapes")()
    return made


@pytest.fixture(scope="module")
def images() -> Tensor:
    return render(CAPTIONS, torch.Generator().manual_seed(0))


def rate(judge: Reward, samples: Tensor, texts: list[str]) -> Tensor:
    """The scores `[N]` of samples of those prompts."""
    return judge(Samples.of(samples, texts))


def decide(judge: Reward, samples: Tensor, texts: list[str]) -> dict[str, Tensor]:
    """The measures of samples of those prompts, each `[N]`."""
    return judge.measures(Samples.of(samples, texts))


@pytest.fixture(scope="module")
def few(images: Tensor) -> Tensor:
    return images[::5]


def other(caption: ShapeCaption, attribute: str) -> ShapeCaption:
    """The caption with the next value of one attribute."""
    values = list({"colour": COLOURS, "shape": SHAPES, "where": PLACES}[attribute])
    found = values[(values.index(getattr(caption, attribute)) + 1) % len(values)]
    return dataclasses.replace(caption, **{attribute: found})


def test_captions_parse_back() -> None:
    assert [
        ShapeCaption.parse(caption.text) for caption in ShapeCaption.every()
    ] == ShapeCaption.every()
    assert len({caption.text for caption in ShapeCaption.every()}) == 120


@pytest.mark.parametrize(
    "text",
    ["", "a red circle", "a pink circle on the left", "the red circle on the left", "x" * 999],
)
def test_a_text_that_is_no_caption_is_refused(text: str, judge: Reward) -> None:
    with pytest.raises(InputError, match="is not a caption of a shape; expected: a red"):
        ShapeCaption.parse(text)
    with pytest.raises(InputError):
        judge.validate_tasks([Task(text)])


def test_what_is_drawn_right_is_judged_right(judge: Reward, images: Tensor) -> None:
    measures = decide(judge, images, TEXTS)
    assert all(
        float(measures[name].mean()) >= 0.995
        for name in ("right", "colour", "shape", "place", "clean")
    )
    scores = rate(judge, images, TEXTS)
    assert float(scores.min()) >= 0 and float(scores.max()) <= 1 and float(scores.mean()) > 0.9


@pytest.mark.parametrize("attribute", ["colour", "shape", "place"])
def test_one_wrong_attribute_is_seen_and_the_others_stand(
    attribute: str, judge: Reward, images: Tensor
) -> None:
    wrong = [other(caption, FIELDS[attribute]).text for caption in CAPTIONS]
    measures = decide(judge, images, wrong)
    assert float(measures["right"].sum()) == 0 and float(measures[attribute].mean()) < 0.005
    assert all(
        float(measures[name].mean()) > 0.995 for name in {"colour", "shape", "place"} - {attribute}
    )
    assert float(rate(judge, images, wrong).mean()) < 0.1
    assert bool((rate(judge, images, wrong) < rate(judge, images, TEXTS)).all())


def spoilt(kind: str, images: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if kind == "blank":
        return blank(len(images))
    if kind == "noise":
        return torch.rand(images.shape, generator=generator)
    if kind == "black":
        return torch.zeros_like(images)
    if kind == "two objects":
        return torch.minimum(images, images.roll(14, dims=3))
    if kind == "filled":
        return images.amin((2, 3), keepdim=True).expand_as(images).clone()
    return blank(len(images)) * 0.8 + images * 0.2  # "faint"


@pytest.mark.parametrize("kind", ["blank", "noise", "black", "two objects", "filled", "faint"])
def test_a_image_of_something_else_is_not_right(kind: str, judge: Reward, images: Tensor) -> None:
    assert float(decide(judge, spoilt(kind, images), TEXTS)["right"].mean()) < 0.01
    assert float(rate(judge, spoilt(kind, images), TEXTS).mean()) < 0.05


@pytest.mark.parametrize("kind", FOOLING)
def test_the_right_object_with_something_else_is_not_right(
    kind: str, judge: Reward, few: Tensor
) -> None:
    spoilt = FOOLING[kind](few)
    assert float(decide(judge, spoilt, FEW)["right"].mean()) < 0.01
    assert float(rate(judge, spoilt, FEW).mean()) < 0.55


@pytest.mark.parametrize("where", ["corner", "beside", "above"])
@pytest.mark.parametrize(("size", "contrast"), [(0.08, 1.0), (0.12, 0.5), (0.2, 0.35), (0.3, 0.25)])
def test_a_second_object_is_seen_wherever_it_is(
    size: float, contrast: float, where: str, judge: Reward, few: Tensor
) -> None:
    for shape in range(len(SHAPES)):
        spoilt = second(few, contrast, size, shape, where)
        assert float(decide(judge, spoilt, FEW)["right"].mean()) < 0.05


@pytest.mark.parametrize(
    "blemish",
    [
        lambda images, depth: second(images, 3 * depth, 0.3),
        lambda images, depth: stripes(images, depth, 4, 0),
        lambda images, depth: noise(images, depth / 2),
    ],
    ids=["a second object", "stripes", "noise"],
)
def test_a_blemish_costs_the_more_the_deeper_it_is(
    blemish: Callable[[Tensor, float], Tensor], judge: Reward, few: Tensor
) -> None:
    depths = [0.0, 0.05, 0.08, 0.11]
    spoilt = [blemish(few, depth) for depth in depths]
    scores = [float(rate(judge, images, FEW).mean()) for images in spoilt]
    unexplained = [float(decide(judge, images, FEW)["unexplained"].mean()) for images in spoilt]
    assert all(more < less - 0.05 for less, more in itertools.pairwise(scores))
    assert all(more > less + 0.01 for less, more in itertools.pairwise(unexplained))


def softened(kind: str, images: Tensor) -> Tensor:
    """What a small autoencoder or a short sampler does to a drawing."""
    if kind == "blurred":
        kernel = torch.tensor([1.0, 4.0, 1.0]) / 6
        kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
        padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
        return torch.nn.functional.conv2d(padded, kernel, groups=3)
    if kind == "grainy":
        return noise(images, 0.02)
    if kind == "a little darker":
        return images - 0.015
    vae = AutoencoderKL.from_pretrained(files("treerl") / "tiny" / "sd35" / "vae")
    with torch.no_grad():
        latents = vae.encode(images * 2 - 1).latent_dist.mean
        decoded: Tensor = vae.decode(latents).sample
    return (decoded / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("kind", ["blurred", "grainy", "a little darker", "through an autoencoder"])
def test_a_drawing_may_be_a_little_soft(kind: str, judge: Reward, few: Tensor) -> None:
    soft = softened(kind, few)
    measures = decide(judge, soft, FEW)
    assert float(measures["clean"].mean()) > 0.99
    assert float(measures["right"].mean()) > 0.85  # the autoencoder mixes up some colours
    assert float(rate(judge, soft, FEW).mean()) > 0.8 * float(rate(judge, few, FEW).mean())


def test_a_score_depends_on_its_own_image_alone(judge: Reward, images: Tensor) -> None:
    order = torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(2))
    shuffled = rate(judge, images[order], [TEXTS[row] for row in order.tolist()])
    alone = torch.cat(
        [
            rate(judge, images[row : row + 1], TEXTS[row : row + 1])
            for row in range(0, len(TEXTS), 97)
        ]
    )
    assert torch.equal(shuffled, rate(judge, images, TEXTS)[order])
    assert torch.equal(alone, rate(judge, images, TEXTS)[::97])


def test_the_built_in_prompts_share_no_caption_and_every_attribute() -> None:
    train, heldout = (
        [ShapeCaption.parse(task.prompt) for task in part] for part in prompts.builtin("shapes")
    )
    assert len(train) == 80 and len(heldout) == 40 and not set(train) & set(heldout)
    for attribute in ("colour", "shape", "where"):
        assert {getattr(c, attribute) for c in train} == {
            getattr(c, attribute) for c in ShapeCaption.every()
        }
