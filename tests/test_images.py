"""Image files of samples: pixels to the nearest level, videos that play."""

import math
from pathlib import Path

import torch
from PIL import Image
from recorded import pixels

from treerl.run import images


def test_pixels_are_rounded_to_the_nearest_level(tmp_path: Path) -> None:
    levels = torch.tensor([0.0, 99.4, 99.6, 254.6, 300.0, -3.0, math.nan]) / 255
    images.save(tmp_path / "a.png", levels.expand(3, 1, 7))
    assert pixels(tmp_path / "a.png")[0, 0].tolist() == [0, 99, 100, 255, 255, 0, 0]


def test_a_video_is_an_animated_image(tmp_path: Path) -> None:
    frames = torch.linspace(0, 1, 3)[:, None, None, None].expand(3, 3, 4, 4)
    images.save(tmp_path / "a.png", frames)
    with Image.open(tmp_path / "a.png") as image:
        assert getattr(image, "n_frames", 1) == 3
