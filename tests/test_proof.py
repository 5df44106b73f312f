"""What an export is proved with: the arguments of a call, as a fresh process is told them."""

import json
from typing import Any

import pytest
import torch
from PIL import Image

from treerl.errors import InputError
from treerl.run import proof


def test_an_image_among_the_arguments_travels_as_a_file() -> None:
    images: dict[str, Image.Image] = {}
    image = Image.new("RGB", (2, 2))
    plain = proof._plain({"image": [image], "count": 3}, "arguments", images)
    assert plain == {"image": [{"image file": "image-0.png"}], "count": 3}
    assert images == {"image-0.png": image}
    assert json.dumps(plain)


@pytest.mark.parametrize("value", [torch.zeros(2), float("nan"), object(), b"bytes"])
def test_an_argument_that_cannot_travel_is_named(value: Any) -> None:
    with pytest.raises(InputError, match=r"^export: arguments: extra\.size: expected "):
        proof._plain({"size": value}, "extra", {})
