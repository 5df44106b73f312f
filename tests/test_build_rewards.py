"""Rewards from plain data: where they run, which fields they take, and frames of videos."""

import pytest
import torch
from misbehaving import Misbehaving

from treerl.engine.task import Samples
from treerl.errors import InputError, RewardError
from treerl.reward.build import build_rewards
from treerl.reward.call import score
from treerl.reward.contract import Reward
from treerl.reward.frames import OverFrames
from treerl.reward.rewards import Rewards


def test_a_reward_of_images_scores_frames_of_videos() -> None:
    class Ramp(Reward):
        def __call__(self, samples: Samples) -> torch.Tensor:
            assert samples.images.dim() == 4 and len(samples) == len(samples.images)
            assert len(samples.group) == len(samples)
            return samples.images.flatten(1).mean(1)

    values = torch.arange(9.0).view(1, 9, 1, 1, 1).expand(2, 9, 3, 4, 4) / 8
    videos = Samples.of(values, ["a", "b"])
    assert OverFrames(Ramp(), 3)(videos).tolist() == [0.5, 0.5]
    assert OverFrames(Ramp(), 4, worst=True)(videos).tolist() == [0.0, 0.0]
    assert OverFrames(Ramp(), 100)(videos).tolist() == [0.5, 0.5]
    with pytest.raises(RewardError, match=r"expected real numbers|expected shape"):
        score("m", OverFrames(Misbehaving(), 2), Samples.of(values, ["boolean", "b"]))
    assert isinstance(build_rewards({"jpeg": 1.0}, modality="videos").scorers["jpeg"], OverFrames)
    with pytest.raises(InputError, match="it scores videos, and the backbone makes images"):
        build_rewards({"moving-shapes": 1.0})


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"executor": "cloud"}, r"^rewards.jpeg.executor: expected process, worker or an address"),
        ({"executor": "http://127.0.0.1:1/path"}, r"^reward jpeg: expected an address such as"),
        ({"executor": "http://a b:1"}, r"^reward jpeg: expected an address such as"),
        ({"executor": "http://me:secret@127.0.0.1:1"}, r"^reward jpeg: expected no password"),
        ({"executor": "http://127.0.0.1:1", "x": 1}, r"^rewards.jpeg: expected no fields"),
        ({"x": 1}, r"^rewards.*x: unknown key; known: none"),
    ],
)
def test_bad_places_and_fields_are_refused(spec: dict[str, object], match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        build_rewards({"jpeg": spec})
    assert "secret" not in str(caught.value)
    assert isinstance(build_rewards({"jpeg": -1}), Rewards)
