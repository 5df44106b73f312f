"""A process that trains one cell after the other: a task a line on stdin, a reply on stdout.

It ends when its stdin does, or when the process that started it is gone.
"""

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from treerl.bench.budget import parse
from treerl.bench.cell import train
from treerl.bench.crew import Reply, Task
from treerl.bench.files import Point
from treerl.config.resolve import resolve
from treerl.errors import Stopped, fault, reason
from treerl.run.assemble import build


def main() -> None:
    """Answer until there is nothing to answer."""
    parent = os.getppid()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a plug-in prints is no reply

    def check() -> None:
        if os.getppid() != parent:
            raise Stopped(signal.SIGTERM)

    try:
        for line in iter(sys.stdin.readline, ""):
            replies.write(json.dumps(answer(json.loads(line), check)) + "\n")
            replies.flush()
    except (Stopped, BrokenPipeError):
        sys.exit(128 + signal.SIGTERM)


def answer(task: Task, check_interrupt: Callable[[], None] = lambda: None) -> Reply:
    """Train a cell; one that fails says why, and what it had reached."""
    points: list[Point] = []
    reply: Reply = {}
    try:
        config = resolve(Path(task["config"]), {}, [], task["allow_plugins"])
        torch.set_num_threads(config.train.threads or 1)
        with closing(build(config, check_interrupt)) as session:
            train(session, parse(task["budget"]), task["marks"], points.append)
    except Stopped:
        raise
    except Exception as error:
        known = fault(error)
        if known is None:
            traceback.print_exc()
        reply = {"error": str(known or reason(error)), "code": known.code if known else 1}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**reply, "points": [point.model_dump() for point in points]}


if __name__ == "__main__":
    main()
