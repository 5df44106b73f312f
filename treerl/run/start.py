"""`treerl run`: a run with its folder, its display and its signals."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from rich.console import Console

from treerl.config.algorithm import algorithm_of
from treerl.config.resolve import dump
from treerl.config.schema import Config
from treerl.errors import InputError
from treerl.run import folder, plugins
from treerl.run.assemble import build, device_of, plan_of
from treerl.run.display import Display
from treerl.run.record import Recorder, manifest_of
from treerl.run.run import Run
from treerl.run.signals import interruptible


def start(config: Config, console: Console, write_page: Callable[[Path], Path]) -> Path:
    """Train as configured; the run folder. A run that is ended leaves its weights there, too."""
    refuse_several_processes()
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    plan = plan_of(config, algorithm_of(config))
    manifest = manifest_of(config, plan.table()["run"], device_of(config))
    output = None if config.output is None else Path(config.output)
    with interruptible() as interrupt:
        place = folder.create(output, config.recipe)  # before a model is loaded for nothing
        try:
            session = build(config, interrupt.check)
        except BaseException:
            place.discard()
            raise
        with closing(session):
            place.write_config(dump(config))
            manifest.plugins = plugins.keep(config, place.path)
            display = Display(console, str(place.path))
            try:
                Run(session, (Recorder(place, manifest), display)).execute()
            finally:
                display.say(f"report: {write_page(place.path)}")
    return place.path


def refuse_several_processes() -> None:
    """`InputError` under a launcher of several processes, which would all do the same run."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world.strip() not in ("", "1"):
        raise InputError(
            f"WORLD_SIZE: expected 1, as a run is one process, got {world!r}; start treerl without "
            "a launcher, on one device"
        )
