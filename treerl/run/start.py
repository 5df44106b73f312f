"""`treerl run`: begun or taken up again, in one process or several, of which the first writes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from treerl.config.algorithm import algorithm_of
from treerl.config.changes import changes
from treerl.config.parallel import Parallel
from treerl.config.resolve import dump, resolve
from treerl.config.schema import Config
from treerl.errors import InputError, Stopped, StorageError, TreerlError
from treerl.run import plugins, reading
from treerl.run.assemble import build, device_of
from treerl.run.claim import Claim, claim, locked
from treerl.run.display import Display
from treerl.run.durable import sweep
from treerl.run.files import Manifest, Resumed
from treerl.run.folder import RunFolder, now
from treerl.run.join import join
from treerl.run.keeper import Keeper
from treerl.run.plan import plan_of
from treerl.run.record import Recorder, manifest_of
from treerl.run.run import Listener, Run
from treerl.run.session import Session
from treerl.run.signals import interruptible
from treerl.run.world import World

AUTO = "auto"  # for `resume`: go on if the output folder holds a run, else begin one


@dataclass(frozen=True)
class _Launch:
    """What a run is started with."""

    config: Config
    console: Console
    write_page: Callable[[Path], Path]
    allow_plugins: bool
    world: World
    check_interrupt: Callable[[], None]

    def build(self) -> Session:
        """The session, or in every process the error of one of them."""
        return self.world.attempt(lambda: build(self.config, self.check_interrupt, self.world))

    def manifest(self) -> Manifest:
        """What is known when the run starts, with a number that all processes share."""
        config = self.config
        plan = plan_of(config, algorithm_of(config))
        manifest = manifest_of(config, plan.table()["run"], device_of(config, self.world))
        manifest.run = self.world.text_of_first(manifest.run)
        return manifest


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
    with joined(config.parallel) as world:
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        with interruptible() as interrupt:
            check = interrupt.check
            if world.size > 1:
                check = partial(interrupt.check_together, world)
                interrupt.alone = False
            shown = console if world.rank == 0 else Console(quiet=True)
            launch = _Launch(config, shown, write_page, allow_plugins, world, check)
            old = world.attempt(lambda: _old_run(config, resume))
            if old is not None:
                return _take_up(launch, old)
            return _begin(launch, leftover=resume == AUTO)


@contextmanager
def joined(parallel: Parallel) -> Iterator[World]:
    """The world of this process; an error that ends it is left for the others to find."""
    world = join(parallel.timeout, parallel.patience)
    try:
        with world.naming_the_lost():
            yield world
    except BaseException as error:
        world.tell(error)
        if isinstance(error, Stopped):
            world.wait_for_rank_0()  # a launcher ends all processes when the first one is gone
        if isinstance(error, TreerlError):
            error.shared = world.size > 1
            error.said = not world.first_to_say(str(error))
        world.part()
        raise
    world.close()


def _begin(launch: _Launch, leftover: bool) -> Path:
    config = launch.config
    world = launch.world
    with ExitStack() as stack:

        def take() -> Claim | None:
            if world.rank > 0:
                return None
            output = None if config.output is None else Path(config.output)
            claimed = claim(output, config.recipe, leftover)
            stack.enter_context(locked(claimed.path))
            return claimed

        claimed = world.attempt(take)  # before a model is loaded for nothing
        path = Path(world.text_of_first("" if claimed is None else str(claimed.path)))
        try:
            session = launch.build()
        except BaseException:
            if claimed is not None:
                claimed.give_back()
            raise
        stack.enter_context(closing(session))
        place = RunFolder(path)
        manifest = launch.manifest()
        if world.rank == 0:
            place.write_config(dump(config))
            manifest.plugins = plugins.keep(config, path)
        _execute(launch, _run(launch, session, place, manifest), path)
    return path


def _take_up(launch: _Launch, path: Path) -> Path:
    """Go on with the run in `path`, which all processes see."""
    config = launch.config
    world = launch.world
    display = Display(launch.console, str(path))
    with ExitStack() as stack:

        def look() -> tuple[Manifest, dict[str, str]]:
            if world.rank == 0:
                stack.enter_context(locked(path))
            began = reading.read_manifest(path)
            plugins.refuse_others(config, began.plugins)
            old = resolve(path / "config.yaml", {}, [], launch.allow_plugins)
            return began, changes(old, config)

        began, changed = world.attempt(look)
        done = int(began.spent.get("iterations") or 0)
        if began.status == "done" and done >= config.train.iterations:
            if world.rank == 0:
                sweep(path)
                launch.write_page(path)  # which may have been cut short
            display.say(f"{path} is done: nothing is left of its {done} iterations")
            return path
        manifest = launch.manifest()
        changed |= _other_versions(began, manifest)
        for name in ("run", "started", "plugins"):
            setattr(manifest, name, getattr(began, name))
        session = stack.enter_context(closing(launch.build()))
        place = RunFolder(path)
        run = _run(launch, session, place, manifest)
        for text in run.keeper.take_up(run):
            display.say(f"skipped: {text}")
        for setting, change in changed.items():
            display.say(f"changed: {setting}: {change}")
        entry = Resumed(time=now(), iteration=run.iterations, changed=changed)
        manifest.resumed = [*began.resumed, entry]
        if world.rank == 0:
            place.write_config(dump(config))
        _execute(launch, run, path)
    return path


def _other_versions(began: Manifest, now: Manifest) -> dict[str, str]:
    """Packages that are others now, and the number of threads: what they mean for figures."""
    changed = {}
    old = {**began.versions, "threads": str(began.threads)}
    new = {**now.versions, "threads": str(now.threads)}
    for name, version in old.items():
        if new.get(name) != version:
            changed[name] = f"{version} -> {new.get(name)}: it may round otherwise"
    return changed


def _run(launch: _Launch, session: Session, place: RunFolder, manifest: Manifest) -> Run:
    """The run with those who look on, in the process that writes."""
    listeners: tuple[Listener, ...] = ()
    if launch.world.rank == 0:
        listeners = (Recorder(place, manifest), Display(launch.console, str(place.path)))
    keeper = Keeper(place, manifest.run, launch.world)
    return Run(session=session, keeper=keeper, listeners=listeners)


def _execute(launch: _Launch, run: Run, path: Path) -> None:
    try:
        run.execute()
    except StorageError:
        with suppress(StorageError):  # where the run found no room there is none for a page
            _write_page(launch, path)
        raise
    except BaseException:
        _write_page(launch, path)
        raise
    _write_page(launch, path)


def _write_page(launch: _Launch, path: Path) -> None:
    if launch.world.rank == 0:
        page = launch.write_page(path)
        Display(launch.console, str(path)).say(f"report: {page}")


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
