"""A vision-language model as judge: how well an image shows its prompt, from 0 to 10."""

import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from treerl.engine.task import Samples
from treerl.errors import RewardError, printable

from ._chat import Chat  # noqa: TID251

QUESTION = (
    'How well does this image show "{prompt}"? Mind every object, number, colour and place that '
    "it names, and the quality of the image. Answer with one number from 0 (not at all) to 10 "
    "(perfectly) and nothing else."
)
_NUMBER = re.compile(r"[0-9]{1,2}(\.[0-9]{1,9})?")


@dataclass(frozen=True)
class Judge(Chat):
    """The judge's number over ten; an answer that is no such number is an error, never a guess."""

    title: ClassVar[str] = "judge"
    question: str = QUESTION  # with {prompt} where the prompt goes

    def __call__(self, samples: Samples) -> Tensor:
        """Scores `[N]` in [0, 1]."""
        questions = [self.question.replace("{prompt}", prompt) for prompt in samples.prompts]
        replies = self.replies(samples.images, questions, tokens=16)
        return torch.tensor([number(reply) / 10 for reply in replies])


def number(reply: str) -> float:
    """The number in "7", "2.5", "7/10" or "10 / 10."; `RewardError` for every other reply.

    Each step looks at every letter once, whatever a model answers.
    """
    text = reply.strip().removesuffix(".")
    value, slash, best = text.partition("/")
    value = value.strip()
    sound = _NUMBER.fullmatch(value) and (not slash or best.strip() == "10")
    if not sound or float(value) > 10:
        raise RewardError(
            f"reward judge: expected a number from 0 to 10, got '{printable(reply, 80)}'"
        )
    return float(value)
