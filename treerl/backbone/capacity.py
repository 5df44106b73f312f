"""How much memory a device has, for refusing by arithmetic what could never fit into it."""

import os

import torch

from treerl.errors import InputError


def total_memory(device: torch.device) -> int | None:
    """Bytes of memory of a device; None where that cannot be asked."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu" and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def refuse_too_large(what: str, needed: int, device: torch.device) -> None:
    """`InputError` when `needed` bytes are more than the device has in all."""
    memory = total_memory(device)
    if memory is not None and needed > memory:
        raise InputError(
            f"{what}: needs {needed / 2**30:,.1f} GiB, and {device} has {memory / 2**30:,.1f} GiB"
        )
