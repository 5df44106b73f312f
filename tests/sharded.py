"""Small runs of two processes that hold half of the model each, or all of it."""

import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from processes import together
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed import FileStore  # type: ignore[attr-defined]

from treerl import registry
from treerl.backbone import random_weights
from treerl.config.resolve import resolve
from treerl.engine import advance as moving, grow as growing, trainer
from treerl.engine.parts import in_parts, whole
from treerl.errors import NumericsError, Stopped, TreerlError
from treerl.run import start as starting
from treerl.run.assemble import build
from treerl.run.join import connect
from treerl.run.session import Session
from treerl.run.world import World

THREE = ("train.prompts_per_iteration", "env.steps", "evaluate.max_prompts", "evaluate.steps")
SETTINGS: dict[str, object] = {
    "recipe": "treegrpo",
    "backbone.model": "miniature",
    "rewards": {"jpeg": 1.0},
    "train.merge_lora": False,  # it rounds differently, and a model in parts cannot
    "train.micro_batch_size": 4,
    "tree.trees_per_prompt": 1,
    "tree.branching.depth": 1,
    "tree.branching.branching_factor": 2,
    "evaluate.samples_per_prompt": 1,
    **dict.fromkeys(THREE, 3),
}
CASES: dict[str, dict[str, object]] = {
    "lora": {"backbone.name": "sd35", "objective.kl": 0.1},
    "reference": {"backbone.name": "sd35", "train.trainable": "full", "objective.kl": 0.1},
    "idle": {
        "backbone.name": "sd35",
        "objective.kl": 0.1,
        "train.prompts_per_iteration": 1,
        "train.optimizer_steps": 1,
        "evaluate.max_prompts": 1,
    },
    "checkpointed": {
        "backbone.name": "flux",
        "train.trainable": "full",
        "train.gradient_checkpointing": True,
    },
    "half precision": {"backbone.name": "wan", "backbone.dtype": "bfloat16"},
    "experts": {"backbone.name": "wan", "train.trainable": "full"},
}
RUN = SETTINGS | {"backbone.model": "tiny", "train.iterations": 2, "train.ema": 0.5}
Told = dict[str, Tensor]


def trials(folder: Path) -> None:
    """Both kinds of all cases in two processes, then runs; what they tell lies in the folder."""
    folder.mkdir()
    together(_process, (str(folder),), 2)


def told(folder: Path, case: str, kind: str) -> list[Told]:
    """What each rank saw of a case, `whole` or `parts`."""
    return [load_file(folder / f"{case}.{kind}.{rank}") for rank in range(2)]


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    world = connect(FileStore(f"{folder}/store", 2), rank, 2, timeout=100)
    for case in CASES:
        for kind in ("whole", "parts"):
            world.sharded = False
            seen = _case(case, kind == "parts", world, Path(folder))
            save_file(seen, Path(folder, f"{case}.{kind}.{rank}"))
    world.close()
    outcomes = {}
    for name in RUNS:
        place = FileStore(f"{folder}/store.{name}", 2)
        outcomes[name] = _outcome(partial(RUNS[name], Path(folder), rank, place))
    Path(folder, f"outcomes.{rank}").write_text(json.dumps(outcomes))


def _case(case: str, sharded: bool, world: World, folder: Path) -> Told:
    if case == "experts":
        registry.load("backbones", "wan").load = classmethod(_experts)
    settings = SETTINGS | CASES[case] | {"parallel.shard": sharded}
    session = build(resolve(None, settings, []), world=world)
    forwards = {name: 0 for name in session.backbone.denoisers}
    for name, module in session.backbone.denoisers.items():

        def count(*_: object, name: str = name) -> None:
            forwards[name] += 1

        module.register_forward_pre_hook(count)
    seen = {"before": session.evaluate().total}
    gradients = _gradients(session)
    for step in session.train(2):
        for name, value in step.metrics.items():
            if isinstance(value, int | float):
                key = f"metric.{step.iteration}.{name}"
                seen[key] = torch.tensor(value, dtype=torch.float64)
    seen |= {f"gradient.{name}": tensor for name, tensor in gradients.items()}
    parameters = session.trainer.optimizer.param_groups[0]
    for name, parameter in zip(parameters["param_names"], parameters["params"], strict=True):
        seen[f"weight.{name}"] = whole(parameter.detach()).clone()
    for name, number in forwards.items():
        seen[f"forwards.{name}"] = torch.tensor(number)
    if sharded:
        session.save(folder / f"{case}.saved")
    seen["held"], seen["all"] = torch.tensor(_held(session)).unbind()
    session.close()
    return {name: tensor.contiguous().clone() for name, tensor in seen.items()}


def _gradients(session: Session) -> Told:
    """Those of the first optimizer step, once it is taken."""
    optimizer = session.trainer.optimizer
    gradients: Told = {}

    def keep(*_: object) -> None:
        if not gradients:
            group = optimizer.param_groups[0]
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if parameter.grad is not None:
                    gradients[name] = whole(parameter.grad).clone()

    optimizer.register_step_pre_hook(keep)
    return gradients


def _held(session: Session) -> tuple[int, int]:
    """The numbers that this process holds of the denoisers, and how many there are."""
    held = 0
    every = 0
    for module in session.backbone.denoisers.values():
        for parameter in module.parameters():
            every += parameter.numel()
            local: Any = parameter
            held += local.to_local().numel() if in_parts(parameter) else parameter.numel()
    return held, every


def _experts(family: Any, settings: Any, device: torch.device) -> Any:
    """Wan 2.2 A14B: one network for the rows before the boundary, one for those after it."""
    pipeline = random_weights.build(family, "miniature", device, torch.float32)
    described = random_weights.parts(family, "miniature")
    second = random_weights.module(described["transformer"]).eval().to(device)
    torch.manual_seed(1)
    for parameter in second.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    pipeline.register_modules(transformer_2=second)
    pipeline.register_to_config(boundary_ratio=0.875)
    return family(pipeline, settings, device)


def settings_of(folder: Path, run: str) -> dict[str, object]:
    return RUN | {"output": str(folder / run)}


def _start(settings: dict[str, object], rank: int, store: Any, resume: str | None = None) -> None:
    world = connect(store, rank, 2, timeout=100)
    config = resolve(None, settings | {"parallel.shard": True}, [])
    with patch.object(starting, "join", return_value=world):
        starting.start(config, Console(quiet=True), lambda path: path, resume)


def _straight(folder: Path, rank: int, store: Any) -> None:
    _start(settings_of(folder, "straight"), rank, store)


def _stopped(folder: Path, rank: int, store: Any) -> None:
    """A signal comes to rank 1 when it begins the second iteration."""
    calls: list[int] = []

    def grow(*arguments: Any, **named: Any) -> Any:
        calls.append(0)
        if len(calls) == 2 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return growing.grow(*arguments, **named)

    with patch.object(trainer, "grow", grow):
        _start(settings_of(folder, "stopped"), rank, store)


def _resumed(folder: Path, rank: int, store: Any) -> None:
    if rank == 0:
        shutil.copytree(folder / "stopped", folder / "left")
    _start(settings_of(folder, "stopped"), rank, store, resume="auto")


def _rolled_back(folder: Path, rank: int, store: Any) -> None:
    """A latent of the second iteration is not finite, once, in rank 1."""
    original = moving._act
    calls: list[int] = []

    def act(*arguments: Any) -> Any:
        calls.append(0)
        part = original(*arguments)
        return replace(part, x=part.x * (torch.nan if rank == 1 and len(calls) == 8 else 1.0))

    with patch.object(moving, "_act", act):
        _start(settings_of(folder, "rolled back") | {"train.guard": "rollback"}, rank, store)


def _lost(folder: Path, rank: int, store: Any) -> None:
    """Rank 1 fails in its second backward pass, while rank 0 waits in the middle of its own."""
    original = trainer.Trainer._add_gradient
    calls: list[int] = []

    def backward(self: trainer.Trainer, *arguments: Any) -> Any:
        calls.append(0)
        if len(calls) == 2 and rank == 1:
            raise NumericsError("the second one")
        return original(self, *arguments)

    with patch.object(trainer.Trainer, "_add_gradient", backward):
        _start(settings_of(folder, "lost"), rank, store)


RUNS: dict[str, Callable[[Path, int, Any], None]] = {
    "straight": _straight,
    "stopped": _stopped,
    "resumed": _resumed,
    "rolled back": _rolled_back,
    "lost": _lost,
}


def _outcome(work: Callable[[], None]) -> str:
    try:
        work()
    except TreerlError as error:
        if isinstance(error, Stopped):
            torch.distributed.destroy_process_group()
        return f"{type(error).__name__} {error.code}: {error}"
    return "done"
