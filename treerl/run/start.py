"""`treerl run`: a run with its folder, its display and its signals; begun, or taken up again."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from rich.console import Console

from treerl.config.algorithm import algorithm_of
from treerl.config.changes import changes
from treerl.config.resolve import dump, resolve
from treerl.config.schema import Config
from treerl.errors import InputError
from treerl.run import plugins, reading
from treerl.run.assemble import build, device_of, plan_of
from treerl.run.claim import claim, locked
from treerl.run.display import Display
from treerl.run.files import Manifest, Resumed
from treerl.run.folder import RunFolder, now
from treerl.run.keeper import Keeper
from treerl.run.record import Recorder, manifest_of
from treerl.run.run import Run
from treerl.run.session import Session
from treerl.run.signals import interruptible

AUTO = "auto"  # for `resume`: go on if the output folder holds a run, else begin one


def start(
    config: Config,
    console: Console,
    write_page: Callable[[Path], Path],
    resume: str | None = None,
    allow_plugins: bool = False,
) -> Path:
    """Train as configured; the run folder. A run that is ended leaves its weights there, too.

    `resume` is the folder of a run that was ended and goes on from its newest whole checkpoint.
    """
    refuse_several_processes()
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    old = _old_run(config, resume)
    if old is not None:
        return _take_up(config, old, console, write_page, allow_plugins)
    output = None if config.output is None else Path(config.output)
    with interruptible() as interrupt:
        claimed = claim(output, config.recipe, leftover=resume == AUTO)
        place = RunFolder(claimed.path)
        with locked(place.path):
            try:
                session = build(config, interrupt.check)
            except BaseException:
                claimed.give_back()
                raise
            with closing(session):
                place.write_config(dump(config))
                manifest = _manifest(config)
                manifest.plugins = plugins.keep(config, place.path)
                display = Display(console, str(place.path))
                run = _run(session, place, manifest, display)
                _execute(run, place, display, write_page)
    return place.path


def _take_up(
    config: Config,
    path: Path,
    console: Console,
    write_page: Callable[[Path], Path],
    allow_plugins: bool,
) -> Path:
    """Go on with the run in `path`."""
    with locked(path):
        began = reading.read_manifest(path)
        told = changes(resolve(path / "config.yaml", {}, [], allow_plugins), config)
        plugins.refuse_others(config, began.plugins)
        display = Display(console, str(path))
        done = int(began.spent.get("iterations") or 0)
        if began.status == "done" and done >= config.train.iterations:
            display.say(f"{path} is done: nothing is left of its {done} iterations")
            return path
        manifest = _manifest(config)
        for name, version in began.versions.items():
            if manifest.versions.get(name) != version:
                told[name] = f"{version} -> {manifest.versions.get(name)}: it may round otherwise"
        manifest.run = began.run
        manifest.started = began.started
        manifest.plugins = began.plugins
        manifest.resumed = began.resumed
        place = RunFolder(path)
        with interruptible() as interrupt, closing(build(config, interrupt.check)) as session:
            run = _run(session, place, manifest, display)
            for text in run.keeper.take_up(run):
                display.say(f"skipped: {text}")
            for setting, change in told.items():
                display.say(f"changed: {setting}: {change}")
            entry = Resumed(time=now(), iteration=run.iterations, changed=told)
            manifest.resumed = [*began.resumed, entry]
            place.write_config(dump(config))
            _execute(run, place, display, write_page)
    return path


def _run(session: Session, place: RunFolder, manifest: Manifest, display: Display) -> Run:
    keeper = Keeper(place, manifest.run)
    return Run(session=session, keeper=keeper, listeners=(Recorder(place, manifest), display))


def _execute(
    run: Run, place: RunFolder, display: Display, write_page: Callable[[Path], Path]
) -> None:
    try:
        run.execute()
    finally:
        display.say(f"report: {write_page(place.path)}")


def _manifest(config: Config) -> Manifest:
    plan = plan_of(config, algorithm_of(config))
    return manifest_of(config, plan.table()["run"], device_of(config))


def _old_run(config: Config, resume: str | None) -> Path | None:
    """The folder of the run that is to go on; None where a new one begins."""
    if resume is None:
        return None
    if resume != AUTO:
        return Path(resume)
    if config.output is None:
        raise InputError("--resume auto: expected --output DIR with it, got none")
    path = Path(config.output)
    return path if (path / "manifest.json").exists() else None


def refuse_several_processes() -> None:
    """`InputError` under a launcher of several processes, which would all do the same run."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world.strip() not in ("", "1"):
        raise InputError(
            f"WORLD_SIZE: expected 1, as a run is one process, got {world!r}; start treerl without "
            "a launcher, on one device"
        )
