"""The world of moving shapes: its captions, its renderer, and what its judge says of videos."""

import dataclasses
import itertools

import pytest
import torch
from fooling import FOOLING, alpha, centre, colour, other as other_colour
from torch import Tensor

import treerl
from treerl.engine.task import Samples, Task
from treerl.errors import InputError
from treerl.reward.contract import Reward
from treerl.run import tasks as prompts
from treerl.toy.drawing import COLOURS, SHAPES, blank, coverage, paint
from treerl.toy.moving import DIRECTIONS, FRAMES, MovingCaption, render

CAPTIONS = [caption for caption in MovingCaption.every() for _ in range(2)]
TEXTS = [caption.text for caption in CAPTIONS]
FEW = TEXTS[::2]
FIELDS = {"colour": "colour", "shape": "shape", "direction": "where"}  # of a caption, by measure
HARD = set(FIELDS)


@pytest.fixture(scope="module")
def judge() -> Reward:
    made: Reward = treerl.load("rewards", "moving-shapes")()
    return made


@pytest.fixture(scope="module")
def videos() -> Tensor:
    return render(CAPTIONS, torch.Generator().manual_seed(0))


def rate(judge: Reward, samples: Tensor, texts: list[str]) -> Tensor:
    """The scores `[N]` of samples of those prompts."""
    return judge(Samples.of(samples, texts))


def decide(judge: Reward, samples: Tensor, texts: list[str]) -> dict[str, Tensor]:
    """The measures of samples of those prompts, each `[N]`."""
    return judge.measures(Samples.of(samples, texts))


@pytest.fixture(scope="module")
def few(videos: Tensor) -> Tensor:
    return videos[::2]


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
def test_a_text_that_is_no_caption_is_refused(text: str, judge: Reward) -> None:
    with pytest.raises(InputError, match="is not a caption of a moving shape; expected: a red"):
        MovingCaption.parse(text)
    with pytest.raises(InputError):
        judge.validate_tasks([Task(text)])


def test_what_moves_right_is_judged_right(judge: Reward, videos: Tensor) -> None:
    assert videos.shape == (len(CAPTIONS), FRAMES, 3, 32, 32)
    measures = decide(judge, videos, TEXTS)
    assert all(float(measures[name].mean()) >= 0.995 for name in {"right", "clean"} | HARD)
    scores = rate(judge, videos, TEXTS)
    assert float(scores.min()) >= 0 and float(scores.max()) <= 1 and float(scores.mean()) > 0.9


@pytest.mark.parametrize("attribute", sorted(HARD))
def test_one_wrong_attribute_is_seen_and_the_others_stand(
    attribute: str, judge: Reward, videos: Tensor
) -> None:
    wrong = [other(caption, FIELDS[attribute]).text for caption in CAPTIONS]
    measures = decide(judge, videos, wrong)
    assert float(measures["right"].sum()) == 0 and float(measures[attribute].mean()) < 0.005
    assert all(float(measures[name].mean()) > 0.995 for name in HARD - {attribute})
    assert float(rate(judge, videos, wrong).mean()) < 0.1
    assert bool((rate(judge, videos, wrong) < rate(judge, videos, TEXTS)).all())


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
    assert float(decide(judge, spoilt(kind, videos), TEXTS)["right"].mean()) < 0.01
    assert float(rate(judge, spoilt(kind, videos), TEXTS).mean()) < 0.05


@pytest.mark.parametrize("kind", FOOLING)
def test_one_spoilt_frame_spoils_the_video(kind: str, judge: Reward, few: Tensor) -> None:
    spoilt = few.clone()
    spoilt[:, 3] = FOOLING[kind](few[:, 3])
    assert float(decide(judge, spoilt, FEW)["right"].mean()) < 0.05
    assert float(rate(judge, spoilt, FEW).mean()) < 0.8


def drawn_as(shape: int, videos: Tensor, grown: float = 1.0) -> Tensor:
    """The videos' object drawn anew in another shape or `grown` times as large, where it was."""
    frames = videos.flatten(0, 1)
    column, row = centre(frames)
    size = alpha(frames).mean((1, 2)).sqrt() * grown
    outline = coverage(column / 32, row / 32, size)[:, shape]
    return paint(blank(len(frames)), outline, colour(frames)).reshape(videos.shape)


def unsteady(kind: str, videos: Tensor) -> Tensor:
    """Videos whose every frame is clean, or nearly so, and which do not hang together."""
    frame = FRAMES - 2
    changed = videos.clone()
    if kind == "another colour in one frame":
        changed[:, frame] = paint(
            videos[:, frame], alpha(videos[:, frame]), other_colour(videos[:, 0])
        )
    elif kind == "a colour that changes on the way":
        for place in range(FRAMES):
            share = alpha(videos[:, place]) * place / (FRAMES - 1)
            changed[:, place] = paint(videos[:, place], share, other_colour(videos[:, 0]))
    elif kind == "another shape in one frame":
        changed[:, frame] = drawn_as(1, videos)[:, frame]
    elif kind == "a shape that changes on the way":
        changed[:, 2:] = drawn_as(1, videos)[:, 2:]
    elif kind == "a size that pulses":
        changed[:, ::2] = drawn_as(0, videos, 1.2)[:, ::2]
    elif kind == "a blank frame":
        changed[:, frame] = blank(1)
    elif kind == "a ground that flickers":
        changed[:, ::2] -= 0.08
    elif kind == "a second object that moves along":
        changed = torch.minimum(videos, videos.roll((10, 10), dims=(3, 4)))
    else:  # "a shadow that follows"
        for place in range(2, FRAMES):
            ghost = alpha(videos[:, place - 2]) * 0.6
            shown = paint(videos[:, place], ghost, colour(videos[:, 0]))
            changed[:, place] = torch.minimum(shown, videos[:, place])
    return changed


@pytest.mark.parametrize(
    "kind",
    [
        "another colour in one frame",
        "a colour that changes on the way",
        "another shape in one frame",
        "a shape that changes on the way",
        "a size that pulses",
        "a blank frame",
        "a ground that flickers",
        "a second object that moves along",
        "a shadow that follows",
    ],
)
def test_a_video_is_of_one_object_all_the_way(kind: str, judge: Reward, videos: Tensor) -> None:
    circles = torch.tensor([caption.shape == "circle" for caption in CAPTIONS])
    texts = [caption.text for caption in CAPTIONS if caption.shape == "circle"]
    spoilt = unsteady(kind, videos[circles])
    assert float(decide(judge, spoilt, texts)["right"].mean()) < 0.02
    assert float(rate(judge, spoilt, texts).mean()) < 0.85


def test_the_score_grows_with_the_way_that_is_made(judge: Reward, videos: Tensor) -> None:
    half = FRAMES // 2
    slower = [
        videos[:, torch.linspace(half - reach, half + reach, FRAMES).round().long()]
        for reach in range(half + 1)
    ]
    means = [float(rate(judge, video, TEXTS).mean()) for video in slower]
    assert all(more > less + 0.1 for less, more in itertools.pairwise(means))


def test_a_score_depends_on_its_own_video_alone(judge: Reward, videos: Tensor) -> None:
    order = torch.randperm(len(TEXTS), generator=torch.Generator().manual_seed(2))
    shuffled = rate(judge, videos[order], [TEXTS[row] for row in order.tolist()])
    alone = torch.cat(
        [
            rate(judge, videos[row : row + 1], TEXTS[row : row + 1])
            for row in range(0, len(TEXTS), 49)
        ]
    )
    assert torch.equal(shuffled, rate(judge, videos, TEXTS)[order])
    assert torch.equal(alone, rate(judge, videos, TEXTS)[::49])


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
