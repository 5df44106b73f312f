"""Text in images: how much of the prompt's quoted words a vision-language model reads there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from treerl.engine.task import Samples, Task
from treerl.errors import InputError, printable

from ._chat import Chat  # noqa: TID251

QUESTION = (
    "Write down all text that stands in this image, letter by letter, and nothing else. "
    "If there is none, write NONE."
)
_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True)
class Ocr(Chat):
    """1 - edit distance / length, at least 0 (Flow-GRPO's OCR reward, arXiv 2505.05470).

    Case and spaces do not count.
    """

    title: ClassVar[str] = "ocr"

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]` in [0, 1]."""
        replies = self.replies(samples.images, [QUESTION] * len(samples), tokens=256)
        scores = []
        for prompt, reply in zip(samples.prompts, replies, strict=True):
            text = wanted(prompt)
            scores.append(max(0.0, 1 - distance(text, _plain(reply)) / len(text)))
        return torch.tensor(scores)

    def validate_tasks(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            wanted(task.prompt)


def wanted(prompt: str) -> str:
    """The quoted words of a prompt, without case and spaces."""
    text = _plain("".join(_QUOTED.findall(prompt)))
    if not text:
        raise InputError(f"prompt '{printable(prompt, 80)}' has no words in \"quotes\" to be read")
    return text


def distance(wanted: str, text: str) -> int:
    """Levenshtein's distance to the nearest stretch of `text`: more text elsewhere costs nothing.

    `row[j]` is the distance of the letters of `wanted` so far to the nearest stretch that ends at
    `text[j - 1]`: of "an" in "banana", row is [0, 0, 0, 0, 0, 0, 0] before the first letter,
    [1, 1, 0, 1, 0, 1, 0] after "a" and [2, 2, 1, 0, 1, 0, 1] after "n".
    """
    row = [0] * (len(text) + 1)
    for number, letter in enumerate(wanted, start=1):
        diagonal = row[0]
        row[0] = number
        for place, other in enumerate(text, start=1):
            above = row[place]
            row[place] = min(above + 1, row[place - 1] + 1, diagonal + (letter != other))
            diagonal = above
    return min(row)


def _plain(text: str) -> str:
    return "" if text.strip() == "NONE" else "".join(text.lower().split())
