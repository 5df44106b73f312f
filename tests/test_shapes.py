"""The world of shapes: its captions, its renderer, and what its judge says of images."""

import dataclasses

import pytest
import torch
from torch import Tensor

import treerl
from treerl.engine.task import Samples
from treerl.errors import InputError
from treerl.reward.call import score
from treerl.reward.contract import Reward
from treerl.run import tasks as prompts
from treerl.toy.drawing import COLOURS, SHAPES, blank
from treerl.toy.shapes import PLACES, ShapeCaption, render

CAPTIONS = [caption for caption in ShapeCaption.every() for _ in range(10)]
TEXTS = [caption.text for caption in CAPTIONS]
FIELDS = {"colour": "colour", "shape": "shape", "place": "where"}  # of a caption, by measure


@pytest.fixture(scope="module")
def judge() -> Reward:
    made: Reward = treerl.load("rewards", "shapes")()
    return made


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return render(CAPTIONS, torch.Generator().manual_seed(0))


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
        score("shapes", judge, Samples.of(blank(1), [text]))


def test_what_is_drawn_right_is_judged_right(judge: Reward, pictures: Tensor) -> None:
    measures = judge.measures(Samples.of(pictures, TEXTS))
    assert all(
        float(measures[name].mean()) >= 0.995 for name in ("right", "colour", "shape", "place")
    )
    scores = judge(Samples.of(pictures, TEXTS))
    assert float(scores.min()) >= 0 and float(scores.max()) <= 1 and float(scores.mean()) > 0.7


@pytest.mark.parametrize("attribute", ["colour", "shape", "place"])
def test_one_wrong_attribute_is_seen_and_the_others_stand(
    attribute: str, judge: Reward, pictures: Tensor
) -> None:
    wrong = [other(caption, FIELDS[attribute]).text for caption in CAPTIONS]
    measures = judge.measures(Samples.of(pictures, wrong))
    assert float(measures["right"].sum()) == 0 and float(measures[attribute].mean()) < 0.005
    assert all(
        float(measures[name].mean()) > 0.995 for name in {"colour", "shape", "place"} - {attribute}
    )
    assert float(judge(Samples.of(pictures, wrong)).mean()) < 0.1
    assert bool((judge(Samples.of(pictures, wrong)) < judge(Samples.of(pictures, TEXTS))).all())


def spoilt(kind: str, pictures: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if kind == "blank":
        return blank(len(pictures))
    if kind == "noise":
        return torch.rand(pictures.shape, generator=generator)
    if kind == "black":
        return torch.zeros_like(pictures)
    if kind == "two objects":
        return torch.minimum(pictures, pictures.roll(14, dims=3))
    if kind == "filled":
        return pictures.amin((2, 3), keepdim=True).expand_as(pictures).clone()
    return blank(len(pictures)) * 0.8 + pictures * 0.2  # "faint"


@pytest.mark.parametrize("kind", ["blank", "noise", "black", "two objects", "filled", "faint"])
def test_a_picture_of_something_else_is_not_right(
    kind: str, judge: Reward, pictures: Tensor
) -> None:
    assert float(judge.measures(Samples.of(spoilt(kind, pictures), TEXTS))["right"].mean()) < 0.01
    assert float(judge(Samples.of(spoilt(kind, pictures), TEXTS)).mean()) < 0.05


def test_a_faint_grid_is_not_judged_but_watched(judge: Reward, pictures: Tensor) -> None:
    grid = pictures.clone()
    grid[:, :, ::2, ::2] -= 0.04
    before, after = (
        judge.measures(Samples.of(pictures, TEXTS)),
        judge.measures(Samples.of(grid.clamp(0, 1), TEXTS)),
    )
    assert float(after["right"].mean()) > 0.99
    assert float(after["background"].mean()) > 5 * float(before["background"].mean()) + 0.01


def test_a_score_depends_on_its_own_picture_alone(judge: Reward, pictures: Tensor) -> None:
    order = torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(2))
    shuffled = judge(Samples.of(pictures[order], [TEXTS[row] for row in order.tolist()]))
    alone = torch.cat(
        [
            judge(Samples.of(pictures[row : row + 1], TEXTS[row : row + 1]))
            for row in range(0, 1200, 97)
        ]
    )
    assert torch.equal(shuffled, judge(Samples.of(pictures, TEXTS))[order])
    assert torch.equal(alone, judge(Samples.of(pictures, TEXTS))[::97])


def test_the_built_in_prompts_share_no_caption_and_every_attribute() -> None:
    train, heldout = (
        [ShapeCaption.parse(task.prompt) for task in part] for part in prompts.builtin("shapes")
    )
    assert len(train) == 80 and len(heldout) == 40 and not set(train) & set(heldout)
    for attribute in ("colour", "shape", "where"):
        assert {getattr(c, attribute) for c in train} == {
            getattr(c, attribute) for c in ShapeCaption.every()
        }
