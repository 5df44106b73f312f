"""Several processes of a test, which begin with everything imported."""

import multiprocessing
from collections.abc import Callable
from typing import Any

from torch.multiprocessing.spawn import start_processes

# a fresh interpreter takes seconds for its imports; a fork of one that has them takes none
_IMPORTED = ["treerl.check", "treerl.run.start", "treerl.backbone.pipeline", "peft"]


def together(work: Callable[..., None], arguments: tuple[Any, ...], size: int) -> None:
    """`work(rank, *arguments)` in `size` processes; raises what one of them raised."""
    multiprocessing.set_forkserver_preload(_IMPORTED)
    start_processes(work, arguments, size, start_method="forkserver")  # type: ignore[no-untyped-call]
