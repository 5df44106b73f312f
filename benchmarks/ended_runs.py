"""A small run, all that it leaves, and processes that end: what `resuming.py` is made of."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load_file

from treerl.config.resolve import resolve
from treerl.errors import TreerlError
from treerl.report import page
from treerl.run import checkpoints
from treerl.run.start import start

TESTS = Path(__file__).parents[1] / "tests"
REWARDS = """
from treerl import Reward

class Dark(Reward):
    def __call__(self, samples):
        return -samples.images.flatten(1).mean(1)

class Level(Reward):
    def __call__(self, samples):
        return -(samples.images.flatten(1).mean(1) - 0.4) ** 2
"""
_SETTINGS: dict[str, object] = {
    "backbone.name": "./plain_torch.py:Points",
    "rewards": {"./mine.py:Dark": 1.0},
    "data.train": "prompts.txt",
    "data.heldout": "prompts.txt",
    "scoring.executor": "process",
    "train.prompts_per_iteration": 2,
    "train.iterations": 8,
    "train.save_every": 1,
    "env.steps": 5,
    "tree.branching.depth": 2,
    "tree.branching.branching_factor": 2,
    "train.optimizer_steps": 2,
    "evaluate.max_prompts": 3,
    "evaluate.every": 3,
}
KINDS: dict[str, dict[str, object]] = {
    "lora": {},
    "full": {"train.trainable": "full"},
    "two rewards": {"rewards": {"./mine.py:Dark": 1.0, "./mine.py:Level": 0.5}},
    "reference": {"train.trainable": "full", "objective.kl": 0.1},
    "every third": {"train.save_every": 3, "train.ppo_epochs": 2},
}


def run(folder: Path, kind: str) -> None:
    """Begin the run or go on with it."""
    config = resolve(None, {**_SETTINGS, **KINDS[kind], "output": str(folder)}, [], True)
    start(config, Console(file=io.StringIO()), page.write, "auto", True)


def figures(folder: Path) -> dict[str, Any]:
    """What may not depend on how often the run was ended."""
    last = checkpoints.newest(folder / "checkpoints")
    checkpoints.verify(last)
    files = {}
    for path in sorted([*last.rglob("*.safetensors"), *folder.glob("samples/*")]):
        content = path.read_bytes()
        if path.suffix == ".safetensors":  # the order of a header's entries is chance
            tensors = load_file(path).items()
            content = b"".join(name.encode() + value.numpy().tobytes() for name, value in tensors)
        files[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    trees = {path.name: json.loads(path.read_text()) for path in folder.glob("trees/*.json")}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    manifest = json.loads((folder / "manifest.json").read_text())
    for row in [*rows, manifest["spent"]]:
        row.pop("seconds")
    kept = {name: manifest[name] for name in ("status", "spent", "evaluation", "alarms")}
    return {"files": files, "rows": rows, "trees": trees, **kept}


def child(work: Callable[[], None]) -> int:
    """Fork; the child's process id. It ends with our exit codes."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        work()
        code = 0
    except TreerlError as error:
        code = error.code
        if code in (1, 2, 3, 4, 5, 6):
            print(f"    {error}", flush=True)
    except KeyboardInterrupt:  # before the run has its own handler, as on the command line
        code = 130
    finally:
        os._exit(code)


def ended(process: int) -> int:
    """The exit code of a child; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def litter(folder: Path) -> list[str]:
    """What no run leaves."""
    found = [path for path in folder.rglob(".*") if path.name != ".lock"]
    return [str(path) for path in found]
