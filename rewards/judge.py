"""A vision-language model as judge: how well a picture shows its prompt, from 0 to 10."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from treerl.errors import RewardError

from ._chat import Chat  # noqa: TID251

QUESTION = (
    'How well does this picture show "{prompt}"? Mind every object, number, colour and place that it names, and the '
    "quality of the picture. Answer with one number from 0 (not at all) to 10 (perfectly) and nothing else."
)
_NUMBER = re.compile(r"\s*(\d{1,2}(?:\.\d+)?)\s*(?:/\s*10)?\s*\.?\s*")


@dataclass(frozen=True)
class Judge(Chat):
    """The judge's number over ten; an answer that is no such number is an error, never a guess."""

    title: ClassVar[str] = "judge"
    question: str = QUESTION  # with {prompt} where the prompt goes

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores `[N]` in [0, 1]."""
        asked = [self.question.replace("{prompt}", prompt) for prompt in prompts]
        return torch.tensor([_number(said) for said in self.replies(images, asked, tokens=16)])


def _number(said: str) -> float:
    found = _NUMBER.fullmatch(said)
    if found is None or float(found[1]) > 10:
        raise RewardError(f"reward judge: expected a number from 0 to 10, got {said[:80]!r}")
    return float(found[1]) / 10
