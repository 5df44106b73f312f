"""The figures of images that no reward sees, of images whose figures are plain."""

import pytest
import torch

from treerl.run.quality import quality

GROUPS = torch.tensor([0, 0])


def stripes(dimension: int, height: int = 8, width: int = 8) -> torch.Tensor:
    """Two images of grey lines that alternate along a dimension, 0.2 and 0.6."""
    size = (height, width)[dimension - 2]
    line = torch.where(torch.arange(size) % 2 == 0, 0.2, 0.6)
    lines = line.view(1, 1, -1, 1) if dimension == 2 else line.view(1, 1, 1, -1)
    return lines.expand(2, 3, height, width).clone()


@pytest.mark.parametrize("dimension", [2, 3])
def test_lines_are_as_rough_whichever_way_they_run(dimension: int) -> None:
    figures = quality(stripes(dimension), GROUPS)
    assert figures["roughness"] == pytest.approx(0.4 / 2, abs=1e-6)
    assert figures["contrast"] == pytest.approx(0.2, rel=0.01)
    assert figures["saturation"] == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_are_saturated(value: float) -> None:
    images = torch.full((2, 3, 4, 4), 0.5)
    images[:, :, :1] = value
    assert quality(images, GROUPS)["saturation"] == pytest.approx(0.25)


@pytest.mark.parametrize("side", [2, 16])
def test_diversity_is_the_distance_of_a_value_whatever_the_size(side: int) -> None:
    images = torch.zeros(4, 3, side, side)
    images[1] = 0.3
    images[3] = 0.5
    alone = quality(images[:2], torch.tensor([0, 1]))
    assert "diversity" not in alone
    both = quality(images, torch.tensor([0, 0, 1, 1]))
    assert both["diversity"] == pytest.approx(0.4, abs=1e-6)


def test_motion_is_the_change_from_frame_to_frame() -> None:
    frames = torch.linspace(0, 0.5, 6).view(1, 6, 1, 1, 1).expand(2, 6, 3, 4, 4)
    figures = quality(frames, GROUPS)
    assert figures["motion"] == pytest.approx(0.1, abs=1e-6) and figures["roughness"] == 0
