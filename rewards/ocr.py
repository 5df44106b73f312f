"""Text in pictures: how much of the prompt's quoted words a vision-language model reads in the picture."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from treerl.errors import InputError

from ._chat import Chat  # noqa: TID251

QUESTION = "Write down all text that stands in this picture, letter by letter, and nothing else. If there is none, write NONE."
_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True)
class Ocr(Chat):
    """1 - edit distance / length, at least 0 (Flow-GRPO's OCR reward, arXiv 2505.05470), without case and spaces."""

    title: ClassVar[str] = "ocr"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[N]` in [0, 1]."""
        read = self.replies(images, [QUESTION] * len(prompts), tokens=256)
        pairs = zip(map(wanted, prompts), map(_plain, read), strict=True)
        return torch.tensor(
            [max(0.0, 1 - distance(text, seen) / len(text)) for text, seen in pairs]
        )

    def refuse(self, prompts: Sequence[str]) -> None:
        for prompt in prompts:
            wanted(prompt)


def wanted(prompt: str) -> str:
    """The quoted words of a prompt, without case and spaces."""
    text = _plain("".join(_QUOTED.findall(prompt)))
    if not text:
        raise InputError(f'prompt {prompt[:80]!r} has no words in "quotes" to be read')
    return text


def distance(wanted: str, found: str) -> int:
    """Levenshtein's distance to the nearest stretch of `found`: more text elsewhere in the picture costs nothing."""
    row = [0] * (len(found) + 1)
    for number, letter in enumerate(wanted, start=1):
        left, row[0], diagonal = number, number, row[0]
        for place, other in enumerate(found, start=1):
            left = min(row[place] + 1, left + 1, diagonal + (letter != other))
            diagonal, row[place] = row[place], left
    return min(row)


def _plain(text: str) -> str:
    return "" if text.strip() == "NONE" else "".join(text.lower().split())
