"""The size of what a pipeline draws, and the tasks that fit it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from treerl.backbone import random_weights
from treerl.engine.task import Task
from treerl.errors import InputError, printable

if TYPE_CHECKING:
    from treerl.backbone.parts import PipelineParts


def chosen(backbone: "PipelineParts") -> tuple[int, int, int]:
    """Height, width and frames of the settings, or the pipeline's own; `InputError` when unfit."""
    settings = backbone.settings
    unit, span = _multiple(backbone)
    standard = backbone.default_size
    if settings.model == "miniature":
        # it keeps what fixes the published size, at which it is no miniature
        standard = random_weights.sizes(type(backbone))[0]
    height = settings.height or standard[0]
    width = settings.width or standard[1]
    frames = settings.frames or standard[2]
    if height % unit or width % unit:
        raise InputError(
            f"backbone.height, backbone.width: expected multiples of {unit}, got {height}x{width}"
        )
    longest = backbone.longest_side
    if longest is not None and max(height, width) > longest:
        raise InputError(
            f"backbone.height, backbone.width: expected at most {longest} pixels a side, as the "
            f"model has positions for no more, got {height}x{width}"
        )
    if backbone.modality == "images" and settings.frames not in (None, 1):
        raise InputError(
            f"backbone.frames: expected null, as {backbone.title} makes images, "
            f"got {settings.frames}"
        )
    if (frames - 1) % span:
        raise InputError(
            f"backbone.frames: expected a multiple of {span} and one more, got {frames}"
        )
    return height, width, frames


def validate_tasks(backbone: "PipelineParts", tasks: Sequence[Task]) -> None:
    """`InputError` for the first task of another size, or without a file that the family reads."""
    for task in tasks:
        name = f"task {printable(task.prompt, 60)!r}"
        if task.size not in (None, (backbone.height, backbone.width)):
            raise InputError(
                f"{name}: size: expected {backbone.height}x{backbone.width}, which is the run's "
                f"(backbone.height, backbone.width), got {task.size[0]}x{task.size[1]}"
            )
        for slot in backbone.media:
            path = task.media.get(slot)
            if path is None:
                raise InputError(f"{name}: {slot}: {backbone.title} needs a file, got none")
            if not path.is_file():
                raise InputError(f"{name}: {slot}: no such file: {printable(path)}")


def _multiple(backbone: "PipelineParts") -> tuple[int, int]:
    multiple: object = backbone.size_multiple
    match multiple:
        case (int() as unit, int() as span) if unit > 0 and span > 0:
            return unit, span
    raise InputError(
        f"backbone {type(backbone).__name__}: size_multiple: expected two numbers, of pixels and "
        f"of frames - 1, got {multiple!r}"
    )
