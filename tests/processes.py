"""Several processes of a test, which begin with everything imported."""

import multiprocessing
from collections.abc import Callable
from typing import Any

from torch.multiprocessing.spawn import ProcessContext, start_processes

# a fresh interpreter takes seconds for its imports; a fork of one that has them takes none
_IMPORTED = ["treerl.check", "treerl.run.start", "treerl.backbone.pipeline", "peft"]


def together(work: Callable[..., None], arguments: tuple[Any, ...], size: int) -> None:
    """`work(rank, *arguments)` in `size` processes; raises what one of them raised."""
    end(begin(work, arguments, size))


def begin(work: Callable[..., None], arguments: tuple[Any, ...], size: int) -> ProcessContext:
    """The same without waiting."""
    multiprocessing.set_forkserver_preload(_IMPORTED)
    context: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
        work, arguments, size, join=False, start_method="forkserver"
    )
    return context


def end(context: ProcessContext) -> None:
    """Wait for all of them; raises what one of them raised."""
    while not context.join():
        pass
