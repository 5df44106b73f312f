"""Writes a run folder while the run goes on: manifest, metrics, pictures, one tree; files appear whole."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from treerl.config.resolve import dump
from treerl.config.schema import Config
from treerl.engine.trainer import Step
from treerl.errors import InputError, StorageError
from treerl.run.evaluate import Evaluation

_PACKAGES = ("treerl", "torch", "diffusers", "transformers", "peft", "numpy", "safetensors")
_PAIRS = 24  # before/after pictures that a run keeps
_FRAME = 120  # milliseconds


@contextmanager
def storing(path: Path) -> Any:
    """Turn an operating-system error about `path` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def choose(config: Config) -> Path:
    """The folder that the run will have; one that exists and is not empty is refused."""
    if config.output is not None:
        run = Path(config.output)
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise InputError(f"output: {run} exists and is not empty; name another folder")
        return run
    taken = [path.name.rpartition("-")[2] for path in Path("runs").glob(f"{config.recipe}-[0-9]*")]
    number = max((int(one) for one in taken if one.isdigit()), default=0) + 1
    return Path("runs") / f"{config.recipe}-{number:04d}"


def create(run: Path, config: Config) -> None:
    """Make the run folder."""
    with storing(run):
        for folder in (run, run / "samples", run / "trees", run / "checkpoints"):
            folder.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_text(dump(config), encoding="utf-8")


def manifest(config: Config, plan: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """What is known when the run starts; the run fills in the rest."""
    return {
        "format": 1,
        "treerl": version("treerl"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": now(),
        "ended": None,
        "status": "running",
        "error": None,
        "seed": config.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "plan": dict(plan),
        "spent": {},
        "seconds": {},
        "alarms": [],
        "evaluation": {"before": None, "after": None},
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_json(path: Path, content: Any) -> None:
    """Publish a JSON file by one rename."""
    with storing(path):
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        draft.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
        draft.replace(path)


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line to a jsonl file."""
    with storing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def samples(run: Path, before: Evaluation, after: Evaluation | None) -> None:
    """The pictures of the first held-out prompts, drawn from the same noise before and after."""
    chosen = [before.prompts.index(prompt) for prompt in dict.fromkeys(before.prompts)][:_PAIRS]
    rows = []
    for number, row in enumerate(chosen):
        entry: dict[str, Any] = {"prompt": before.prompts[row]}
        for name, one in (("before", before), ("after", after)):
            entry[name] = f"{name}-{number:03d}.png" if one else None
            entry[f"{name}_score"] = plain(one.score[row]) if one else None
            entry[f"{name}_right"] = (
                plain(one.measures["right"][row]) if one and "right" in one.measures else None
            )
            if one:
                picture(run / "samples" / f"{name}-{number:03d}.png", one.images[row])
        rows.append(entry)
    write_json(run / "samples" / "samples.json", {"samples": rows})


def plain(figure: Tensor) -> float | None:
    """A figure as JSON has it: None where there is no number."""
    return float(figure) if bool(torch.isfinite(figure)) else None


def tree(run: Path, iteration: int, step: Step, images: Tensor, total: Tensor) -> None:
    """The trees of the first prompt, with pictures `[L, 3, H, W]` and total rewards `[L]` of its leaves."""
    grown, gained = step.tree, step.advantages
    mine = (grown.prompt == 0).nonzero().flatten().tolist()
    place = {node: number for number, node in enumerate(mine)}
    leaf = {
        node: number
        for number, node in enumerate(grown.leaves[grown.prompt[grown.leaves] == 0].tolist())
    }
    nodes = []
    for node in mine:
        sampled = bool(grown.stochastic[node])
        nodes.append(
            {
                "id": place[node],
                "parent": place.get(int(grown.parent[node]), -1),
                "step": int(grown.step[node]),
                "stochastic": sampled,
                "advantage": float(gained.advantage[node]) if sampled else None,
                "value": float(gained.value[node]),
                "score": float(total[leaf[node]]) if node in leaf else None,
                "picture": f"leaf-{leaf[node]:03d}.png" if node in leaf else None,
            }
        )
    for number, image in enumerate(images):
        picture(run / "trees" / f"leaf-{number:03d}.png", image)
    window = sorted({int(grown.step[node]) - 1 for node in mine if grown.stochastic[node]})
    about = {
        "iteration": iteration,
        "prompt": step.prompts[0],
        "steps": len(grown.sizes) - 1,
        "window": window,
    }
    write_json(run / "trees" / "tree.json", {**about, "nodes": nodes})


def picture(path: Path, image: Tensor) -> None:
    """One picture `[3, H, W]` in [0, 1] as PNG; a video `[F, 3, H, W]` as an animated one, which browsers play."""
    with storing(path):
        frames = image if image.dim() == 4 else image[None]
        pixels = (
            (frames.clamp(0, 1) * 255)
            .round()
            .to(torch.uint8)
            .permute(0, 2, 3, 1)
            .contiguous()
            .numpy()
        )
        first, *rest = [Image.fromarray(frame) for frame in pixels]
        if not rest:
            first.save(path)
            return
        # the last frame rests for a moment, so that one sees where the video begins again
        lasting = [_FRAME] * len(rest) + [6 * _FRAME]
        first.save(path, save_all=True, append_images=rest, duration=lasting, loop=0)
