"""How many cells are trained side by side, and on which device each."""

import os
from collections.abc import Mapping

import torch

from treerl.config.schema import Config
from treerl.run.assemble import device_of

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # figures shall not depend on neighbours


def environments(config: Config, jobs: int | None, cells: int) -> list[Mapping[str, str]]:
    """The environment of each worker: `jobs` of them, or one a device, or one a core.

    Each has one thread (`train.threads` of the cell, if that is set) and, with CUDA, one device.
    """
    devices = _devices(config)
    count = min(jobs or len(devices) or _cores(), max(cells, 1))
    settings: list[Mapping[str, str]] = []
    for number in range(count):
        device = {_VISIBLE: devices[number % len(devices)]} if devices else {}
        settings.append({**_ALONE, **device})
    return settings


def _devices(config: Config) -> list[str]:
    """The GPUs that cells are spread over; none where they are trained elsewhere."""
    name = str(config.backbone.params.get("device", "auto"))
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    visible = os.environ.get(_VISIBLE)
    if visible is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    return [part.strip() for part in visible.split(",")][: torch.cuda.device_count()]


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(config: Config) -> str:
    """Where cells are trained, in words."""
    device = device_of(config)
    return "cpu" if device.type == "cpu" else str(torch.cuda.get_device_name(device))
