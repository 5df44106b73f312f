"""A long run with a reward in a process of its own: what it keeps of memory, threads and files.

    python benchmarks/soak.py [UPDATES]      exit code 1 when something grows

The run is small (two linear layers), writes its rows and saves every 100 iterations, each of one
update, as any run does. What it and its worker hold is read after every iteration; the slope is
that of the resident memory by least squares, over the iterations after the first tenth.
"""

import os
import sys
import tempfile
from collections import Counter
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from treerl.reward.worker import Worker
from treerl.run.run import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ended_runs import prepare, run


class Held:
    """What a process holds, reading for reading."""

    def __init__(self) -> None:
        self.kilobytes: list[float] = []
        self.threads: list[int] = []
        self.files: list[int] = []

    def read(self, process: int) -> None:
        place = Path(f"/proc/{process}")
        pages = int((place / "statm").read_text().split()[1])
        self.kilobytes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1024)
        self.threads.append(len(list((place / "task").iterdir())))
        self.files.append(len(list((place / "fd").iterdir())))

    @property
    def warm(self) -> int:
        """Readings before it has all that it needs."""
        return len(self.kilobytes) // 10

    def constant(self) -> bool:
        """Whether threads and files stay as many, and memory grows by 1 KB an update at most."""
        memory = np.array(self.kilobytes[self.warm :])
        slope = np.polyfit(np.arange(len(memory)), memory, 1)[0]
        kinds = {*zip(self.threads[self.warm :], self.files[self.warm :], strict=True)}
        return bool(slope <= 1) and len(kinds) == 1

    def said(self) -> str:
        """The slope of memory, and which numbers of threads and files there were how often."""
        warm = self.warm
        memory = np.array(self.kilobytes[warm:])
        slope = np.polyfit(np.arange(len(memory)), memory, 1)[0]
        half = len(memory) // 2
        late = np.polyfit(np.arange(half), memory[-half:], 1)[0]
        threads = dict(Counter(self.threads[warm:]))
        files = dict(Counter(self.files[warm:]))
        return (
            f"{slope:+.2f} KB an update ({late:+.2f} in the second half), from {memory[0]:.0f} to "
            f"{memory[-1]:.0f} KB; threads: {threads}; files: {files}"
        )


def main(updates: int) -> int:
    torch.set_num_threads(1)
    held = Held()
    workers = Held()
    original = Run._step

    def step(self: Run, *arguments: Any) -> None:
        original(self, *arguments)
        held.read(os.getpid())
        (worker,) = self.session.rewards.scorers.values()
        assert isinstance(worker, Worker) and worker.pid is not None
        workers.read(worker.pid)

    sets = (
        f"train.iterations={updates}",
        "train.save_every=100",
        "evaluate.every=0",
        "scoring.executor=worker",
    )
    with tempfile.TemporaryDirectory() as place, chdir(place), patch.object(Run, "_step", step):
        prepare(Path(place))
        run(Path("run"), *sets)
    print(f"{len(held.kilobytes)} updates")
    print(f"run: {held.said()}")
    print(f"worker: {workers.said()}")
    return 0 if held.constant() and workers.constant() else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
