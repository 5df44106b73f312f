"""What is asked for and what is scored: a task, and the samples that were made for some tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Modality = Literal["images", "videos"]


@dataclass(frozen=True)
class Task:
    """One row of a prompt file; a line of text is the task with a prompt alone.

        Task("a quiet sea", metadata={"colour": "blue"})

    Backbones encode tasks, rewards see them. Equal tasks are interchangeable, so that a backbone
    may encode each of them once.
    """

    prompt: str
    negative: str | None = None  # what guidance leads away from; None is the backbone's own
    media: Mapping[str, Path] = field(default_factory=dict, hash=False)  # files by slot: image, ...
    metadata: Mapping[str, Any] = field(
        default_factory=dict, hash=False
    )  # every other key of the row
    size: tuple[int, int] | None = None  # height and width in pixels; None is the run's

    @classmethod
    def of(cls, task: "Task | str") -> "Task":
        """The task itself, or that of a plain text."""
        return task if isinstance(task, Task) else cls(task)


@dataclass(frozen=True)
class Samples:
    """Finished samples with the tasks that they were made for: what a reward scores."""

    images: Tensor  # [N, 3, H, W] images or [N, F, 3, H, W] videos in [0, 1]; or what an env makes
    tasks: tuple[Any, ...]  # [N] the task of each sample: a `Task`, or whatever an env takes
    group: Tensor  # [N] int64, samples of one task share a number

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The text `[N]` of each sample's task."""
        return tuple(Task.of(task).prompt for task in self.tasks)

    def take(self, index: Tensor) -> "Samples":
        """The samples `index`."""
        rows = index.tolist()
        return Samples(
            self.images[index], tuple(self.tasks[row] for row in rows), self.group[index]
        )

    @classmethod
    def cat(cls, parts: "Sequence[Samples]") -> "Samples":
        """The samples of all parts, one at least."""
        tasks = tuple(task for part in parts for task in part.tasks)
        group = torch.cat([part.group for part in parts])
        return cls(torch.cat([part.images for part in parts]), tasks, group)

    @classmethod
    def of(cls, images: Tensor, tasks: "tuple[Any, ...] | list[Any]") -> "Samples":
        """Samples `[N, ...]` of these tasks `[N]`; equal tasks form a group."""
        numbers: dict[str, int] = {}
        group = [numbers.setdefault(repr(task), len(numbers)) for task in tasks]
        return cls(images, tuple(tasks), torch.tensor(group, dtype=torch.int64))
