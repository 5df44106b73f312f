"""The evaluation before training, among the tensors of a checkpoint."""

from collections.abc import Mapping

import torch
from torch import Tensor

from treerl.run.evaluate import Figures

_BEFORE = "before/"


def tensors_of(before: Figures) -> dict[str, Tensor]:
    """The figures by name."""
    tensors = {"scores": before.scores, "total": before.total}
    for name, value in before.measures.items():
        tensors[f"measures/{name}"] = value
    for name, value in before.watched.items():
        tensors[f"watched/{name}"] = value
    # clones: columns of one tensor would be refused as tensors that share their memory
    whole = torch.contiguous_format
    return {f"{_BEFORE}{name}": value.clone(memory_format=whole) for name, value in tensors.items()}


def among(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a checkpoint that are of this evaluation; none where there was none."""
    names = [name for name in tensors if name.startswith(_BEFORE)]
    return {name.removeprefix(_BEFORE): tensors[name] for name in names}


def figures_of(tensors: Mapping[str, Tensor], quality: Mapping[str, float | None]) -> Figures:
    """The figures again."""
    parts: dict[str, dict[str, Tensor]] = {"measures": {}, "watched": {}}
    for name, value in tensors.items():
        part, _, title = name.partition("/")
        if part in parts:
            parts[part][title] = value
    return Figures(
        scores=tensors["scores"],
        total=tensors["total"],
        measures=parts["measures"],
        watched=parts["watched"],
        quality={name: float("nan" if v is None else v) for name, v in quality.items()},
    )
