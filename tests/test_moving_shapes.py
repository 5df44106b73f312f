"""The world of moving shapes: its captions, its renderer, and what its judge says of videos."""

import dataclasses
import itertools

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
from treerl.toy.moving import DIRECTIONS, FRAMES, MovingCaption, render

CAPTIONS = [caption for caption in MovingCaption.every() for _ in range(4)]
TEXTS = [caption.text for caption in CAPTIONS]
FIELDS = {"colour": "colour", "shape": "shape", "direction": "where"}  # of a caption, by measure
HARD = set(FIELDS)


@pytest.fixture(scope="module")
def judge() -> Reward:
    made: Reward = treerl.load("rewards", "moving-shapes")()
    return made


@pytest.fixture(scope="module")
def videos() -> Tensor:
    return render(CAPTIONS, torch.Generator().manual_seed(0))


def other(caption: MovingCaption, attribute: str) -> MovingCaption:
    """The caption with the next value of one attribute."""
    values = list({"colour": COLOURS, "shape": SHAPES, "where": DIRECTIONS}[attribute])
    found = values[(values.index(getattr(caption, attribute)) + 1) % len(values)]
    return dataclasses.replace(caption, **{attribute: found})


def test_captions_parse_back() -> None:
    assert [
        MovingCaption.parse(caption.text) for caption in MovingCaption.every()
    ] == MovingCaption.every()
    assert len({caption.text for caption in MovingCaption.every()}) == 96


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red circle",
        "a red circle on the left",
        "the red circle moves left",
        "a red circle moves",
        "x" * 99,
    ],
)
def test_a_text_that_is_no_caption_is_refused(text: str, judge: Reward, videos: Tensor) -> None:
    with pytest.raises(InputError, match="is not a caption of a moving shape; expected: a red"):
        MovingCaption.parse(text)
    with pytest.raises(InputError):
        score("moving-shapes", judge, Samples.of(videos[:1], [text]))


def test_what_moves_right_is_judged_right(judge: Reward, videos: Tensor) -> None:
    assert videos.shape == (len(CAPTIONS), FRAMES, 3, 32, 32)
    measures = judge.measures(Samples.of(videos, TEXTS))
    assert all(float(measures[name].mean()) >= 0.995 for name in {"right"} | HARD)
    scores = judge(Samples.of(videos, TEXTS))
    assert float(scores.min()) >= 0 and float(scores.max()) <= 1 and float(scores.mean()) > 0.7


@pytest.mark.parametrize("attribute", sorted(HARD))
def test_one_wrong_attribute_is_seen_and_the_others_stand(
    attribute: str, judge: Reward, videos: Tensor
) -> None:
    wrong = [other(caption, FIELDS[attribute]).text for caption in CAPTIONS]
    measures = judge.measures(Samples.of(videos, wrong))
    assert float(measures["right"].sum()) == 0 and float(measures[attribute].mean()) < 0.005
    assert all(float(measures[name].mean()) > 0.995 for name in HARD - {attribute})
    assert float(judge(Samples.of(videos, wrong)).mean()) < 0.1
    assert bool((judge(Samples.of(videos, wrong)) < judge(Samples.of(videos, TEXTS))).all())


def spoilt(kind: str, videos: Tensor) -> Tensor:
    half = FRAMES // 2
    if kind == "still":
        return videos[:, half : half + 1].expand_as(videos)
    if kind == "one frame":
        return videos[:, :1]
    if kind == "backwards":
        return videos.flip(1)
    if kind == "back and forth":
        return torch.cat([videos[:, : half + 1], videos[:, :half].flip(1)], dim=1)
    if kind == "shuffled":
        return videos[:, torch.randperm(FRAMES, generator=torch.Generator().manual_seed(1))]
    if kind == "vanishing":
        return torch.cat([videos[:, :half], blank(1).expand_as(videos[:, half:])], dim=1)
    return blank(1).expand_as(videos)  # "blank"


@pytest.mark.parametrize(
    "kind", ["still", "one frame", "backwards", "back and forth", "shuffled", "vanishing", "blank"]
)
def test_a_video_of_something_else_is_not_right(kind: str, judge: Reward, videos: Tensor) -> None:
    assert float(judge.measures(Samples.of(spoilt(kind, videos), TEXTS))["right"].mean()) < 0.01
    assert float(judge(Samples.of(spoilt(kind, videos), TEXTS)).mean()) < 0.05


def test_the_score_grows_with_the_way_that_is_made(judge: Reward, videos: Tensor) -> None:
    half = FRAMES // 2
    slower = [
        videos[:, torch.linspace(half - reach, half + reach, FRAMES).round().long()]
        for reach in range(half + 1)
    ]
    means = [float(judge(Samples.of(video, TEXTS)).mean()) for video in slower]
    assert all(more > less + 0.1 for less, more in itertools.pairwise(means))


def test_a_score_depends_on_its_own_video_alone(judge: Reward, videos: Tensor) -> None:
    order = torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(2))
    shuffled = judge(Samples.of(videos[order], [TEXTS[row] for row in order.tolist()]))
    alone = torch.cat(
        [
            judge(Samples.of(videos[row : row + 1], TEXTS[row : row + 1]))
            for row in range(0, 384, 97)
        ]
    )
    assert torch.equal(shuffled, judge(Samples.of(videos, TEXTS))[order])
    assert torch.equal(alone, judge(Samples.of(videos, TEXTS))[::97])


def test_the_built_in_prompts_share_no_caption_and_every_attribute() -> None:
    train, heldout = (
        [MovingCaption.parse(task.prompt) for task in part]
        for part in prompts.builtin("moving-shapes")
    )
    assert len(train) == 64 and len(heldout) == 32 and not set(train) & set(heldout)
    for attribute in FIELDS.values():
        assert {getattr(c, attribute) for c in train} == {
            getattr(c, attribute) for c in MovingCaption.every()
        }
