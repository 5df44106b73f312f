"""Processes of a test, forked from one that has imported what takes seconds, but no treerl."""

import multiprocessing
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

from torch.multiprocessing.spawn import ProcessContext, start_processes

_IMPORTED = [
    "torch.distributed.fsdp",
    "peft",
    "diffusers.loaders",
    "diffusers.pipelines.pipeline_utils",
    "transformers.modeling_utils",
    "pydantic",
    "rich.console",
]


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


def run_script(
    command: Sequence[str], capture_output: bool, text: bool, timeout: float, cwd: Path
) -> CompletedProcess[str]:
    """`subprocess.run` of `python script arguments`, in a process that knows nothing of treerl."""
    assert capture_output and text
    with TemporaryDirectory() as name:
        together(_script, (tuple(command[1:]), str(cwd), name), 1)
        code = int(Path(name, "code").read_text())
        stdout = Path(name, "stdout").read_text()
        stderr = Path(name, "stderr").read_text()
    return CompletedProcess(list(command), code, stdout, stderr)


def _script(rank: int, words: Sequence[str], cwd: str, told: str) -> None:
    assert not [name for name in sys.modules if name.partition(".")[0] == "treerl"]
    os.chdir(cwd)
    sys.argv = list(words)
    code = 0
    with Path(told, "stdout").open("w") as sys.stdout, Path(told, "stderr").open("w") as sys.stderr:
        try:
            runpy.run_path(words[0], run_name="__main__")
        except Exception:
            traceback.print_exc()
            code = 1
    Path(told, "code").write_text(str(code))
