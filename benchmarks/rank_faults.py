"""Faults of one process of two, on purpose, in every phase: what is said, how soon, what is left.

It is told how soon the process was named, and when all had ended.

    python benchmarks/rank_faults.py                 every fault in every phase, in both ranks
    python benchmarks/rank_faults.py stop update 1   those alone

A run is started with `--devices 2`; its reward, a file of its own, does harm when a phase begins.
`hang` is a process that lives and does nothing: it has as long as `parallel.timeout`, 8 s here, and
as long again when it is saving.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import psutil  # type: ignore[import-untyped]

PHASES = ("evaluate", "rollout", "reward", "merge", "update", "save")
FAULTS = ("kill", "stop", "raise", "memory", "hang")
_TIMEOUT = 8
_NAMED = 15.0  # seconds, but for a process that hangs
# seconds to the end of all, who write what they have first
_LIMITS = dict.fromkeys(FAULTS, 30.0) | {"hang": 2 * _TIMEOUT + 15.0}
_REWARD = """
import os, pathlib, signal, time
import treerl
from treerl.run.world import World

begin = World.phase

def phase(world, name):
    begin(world, name)
    if os.environ["FAULT_RANK"] != str(world.rank) or os.environ["FAULT_PHASE"] != name:
        return
    pathlib.Path("began").write_text(str(time.time()))
    what = os.environ["FAULT"]
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "raise":
        raise ArithmeticError("on purpose")
    elif what == "memory":
        raise MemoryError
    elif what == "hang":
        time.sleep(1000)

World.phase = phase

class Faulty(treerl.Reward):
    def __call__(self, samples):
        return samples.images.flatten(1).mean(1)
"""
_SETTINGS = (
    "recipe=treegrpo",
    "backbone.model=miniature",
    "train.prompts_per_iteration=2",
    "train.iterations=2",
    "train.save_every=1",
    "env.steps=4",
    "tree.branching.depth=1",
    "tree.branching.branching_factor=2",
    "evaluate.max_prompts=2",
    f"parallel.timeout={_TIMEOUT}",
)


@dataclass(frozen=True)
class Outcome:
    """What a fault led to."""

    code: int
    named: float  # seconds from the fault to the line that names the process
    seconds: float  # to the end of all
    said: str  # that line
    left: list[int]  # processes that still live

    def right(self, fault: str, phase: str, rank: int) -> bool:
        named = f"rank {rank}" in self.said and f"phase {phase}" in self.said
        soon = self.named <= (_LIMITS[fault] if fault == "hang" else _NAMED)
        ended = self.seconds <= _LIMITS[fault] and not self.left
        return self.code == 5 and named and soon and ended


def tried(fault: str, phase: str, rank: int) -> Outcome:
    """One run with one fault, in the current folder."""
    Path("faulty.py").write_text(_REWARD)
    Path("began").unlink(missing_ok=True)
    marks = {"FAULT": fault, "FAULT_PHASE": phase, "FAULT_RANK": str(rank)}
    environment = {**os.environ, **marks, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "treerl", "run", "--devices", "2", "--allow-plugins"]
    command += ["--reward", "./faulty.py:Faulty", "--output", f"{fault}-{phase}-{rank}"]
    for setting in _SETTINGS:
        command += ["--set", setting]
    run = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    late = Timer(120, run.kill)
    late.start()
    assert run.stderr is not None
    lines = [(time.time(), line.rstrip()) for line in run.stderr]
    code = run.wait()
    late.cancel()
    if not Path("began").exists():
        sys.exit(f"{fault} in {phase} never came: {lines}")
    began = float(Path("began").read_text())
    seconds = time.time() - began
    names = [(when - began, line) for when, line in lines if line.startswith("treerl: rank")]
    named, said = names[0] if names else (seconds, str(lines[-3:]))
    left = [process.pid for process in psutil.process_iter() if _ours(process, marks)]
    return Outcome(code, named, seconds, said, left)


def _ours(process: psutil.Process, marks: dict[str, str]) -> bool:
    """Whether it is a process of the run with these marks."""
    if process.pid == os.getpid():
        return False
    try:
        return bool(marks.items() <= process.environ().items())
    except (psutil.Error, OSError):
        return False


def main(words: list[str]) -> None:
    faults = [word for word in words if word in FAULTS] or FAULTS
    phases = [word for word in words if word in PHASES] or PHASES
    ranks = [rank for rank in (1, 0) if str(rank) in words] or (1, 0)
    total = 0
    wrong = 0
    with tempfile.TemporaryDirectory() as place, chdir(place):
        for fault in faults:
            for phase in phases:
                for rank in ranks:
                    outcome = tried(fault, phase, rank)
                    good = outcome.right(fault, phase, rank)
                    total += 1
                    wrong += not good
                    mark = "ok   " if good else "WRONG"
                    print(
                        f"{mark} {fault:<6} {phase:<8} rank {rank}: code {outcome.code}, "
                        f"{outcome.named:4.1f} and {outcome.seconds:4.1f} s, {outcome.said}",
                        *outcome.left,
                        flush=True,
                    )
    print(f"{total} faults: {wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main(sys.argv[1:])
