"""Small runs that are ended and taken up again, and all that such a run leaves."""

import hashlib
import io
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from treerl.config.resolve import resolve
from treerl.engine import grow as growing, trainer
from treerl.report import page
from treerl.run import checkpoints
from treerl.run.start import start

SETTINGS: dict[str, object] = {
    "backbone.name": "./plain_torch.py:Points",
    "rewards": {"./dark.py:Dark": 1.0},
    "scoring.executor": "process",
    "data.train": "prompts.txt",
    "data.heldout": "prompts.txt",
    "train.prompts_per_iteration": 1,
    "train.save_every": 1,
    "env.steps": 4,
    "tree.branching.depth": 1,
    "tree.branching.branching_factor": 2,
    "train.optimizer_steps": 1,
    "train.decay": "none",  # a run that is planned longer has other rates
    "evaluate.max_prompts": 2,
    "evaluate.every": 2,
    "train.iterations": 4,
}
KINDS = {
    "lora": ("train.trainable=lora",),
    "full": ("train.trainable=full",),
    "two rewards": (
        "rewards={./dark.py:Dark: 1, ./dark.py:Level: 0.5}",
        "watch=[./dark.py:Watched]",
        "train.ppo_epochs=2",
    ),
    "reference": ("train.trainable=full", "objective.kl=0.1"),
    "average": ("train.trainable=full", "train.ema=0.9", "train.rollout=ema"),
    "every third": ("train.save_every=3", "train.prompts_per_iteration=2"),
}
REWARDS = """
from treerl import Reward

class Dark(Reward):
    def __call__(self, samples):
        return -samples.images.flatten(1).mean(1)

class Level(Reward):
    def __call__(self, samples):
        return -(samples.images.flatten(1).mean(1) - 0.4) ** 2

class Watched(Level):
    pass
"""


def run(folder: Path, *sets: str, resume: str | None = None) -> str:
    """What was printed."""
    settings = {**SETTINGS, "output": str(folder)}
    if resume not in (None, "auto"):
        settings = {}
    file = Path(str(resume)) / "config.yaml" if not settings else None
    config = resolve(file, settings, sets, True)
    output = io.StringIO()
    start(config, Console(file=output, width=200), page.write, resume, True)
    return output.getvalue()


@contextmanager
def stopping(most: int) -> Iterator[None]:
    """While inside, SIGTERM comes when the iteration after so many begins."""
    calls: list[int] = []

    def grow(*arguments: Any, **named: Any) -> Any:
        calls.append(0)
        if len(calls) == most + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return growing.grow(*arguments, **named)

    with patch.object(trainer, "grow", grow):
        yield


def _bytes(name: str, value: Tensor) -> bytes:
    return name.encode() + value.contiguous().numpy().tobytes()


def figures(folder: Path) -> dict[str, Any]:
    """All that a run left which may not depend on how often it was ended."""
    last = checkpoints.newest(folder / "checkpoints")
    files = {}
    for path in sorted(
        [*last.rglob("*.safetensors"), *folder.glob("samples/*"), *folder.glob("trees/**/*")]
    ):
        content = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".safetensors":  # the order of a header's entries is chance
            content = b"".join(_bytes(name, value) for name, value in load_file(path).items())
        files[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    manifest = json.loads((folder / "manifest.json").read_text())
    for row in [*rows, manifest["spent"]]:
        row.pop("seconds")
    kept = {name: manifest[name] for name in ("status", "spent", "evaluation", "alarms", "prompts")}
    return {"files": files, "rows": rows, **kept}


def prepare(folder: Path) -> None:
    """Write what the settings name: the model, the rewards, the prompts."""
    shutil.copy(Path(__file__).parent / "plain_torch.py", folder)
    (folder / "dark.py").write_text(REWARDS)
    (folder / "prompts.txt").write_text("a cat\na dog\na fox\na bear\n")


def litter(folder: Path) -> list[str]:
    """What no run leaves."""
    return [str(path) for path in folder.rglob(".*") if path.name != ".lock"]
