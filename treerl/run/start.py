"""`treerl run`: a run with its folder, its display and its signals, in one process or several."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from treerl.config.resolve import dump
from treerl.config.schema import Config
from treerl.errors import Stopped, TreerlError
from treerl.run import folder, plugins
from treerl.run.assemble import build, device_of
from treerl.run.display import Display
from treerl.run.folder import RunFolder
from treerl.run.join import join
from treerl.run.record import Recorder, manifest_of
from treerl.run.run import Run
from treerl.run.session import Session
from treerl.run.signals import interruptible
from treerl.run.world import World


def start(config: Config, console: Console, write_page: Callable[[Path], Path]) -> Path | None:
    """Train as configured; the run folder, which rank 0 of several processes alone has.

    A run that is ended leaves its weights there, too.
    """
    with joined(config.parallel.timeout) as world:
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        with interruptible() as interrupt:
            check = interrupt.check
            if world.size > 1:
                check = partial(interrupt.check_together, world)
            place = world.attempt(lambda: _claim(config, world))  # before a model is loaded
            try:
                session = world.attempt(lambda: build(config, check, world))
            except BaseException:
                if place is not None:
                    place.discard()
                raise
            with closing(session):
                if place is None:
                    Run(session).execute()
                else:
                    _record(session, place, console, write_page, world)
        return None if place is None else place.path


@contextmanager
def joined(timeout: float) -> Iterator[World]:
    """The world of this process; an error that ends it is left for the others to find."""
    world = join(timeout)
    try:
        yield world
    except BaseException as error:
        world.tell(error)
        if isinstance(error, Stopped):
            world.wait_for_rank_0()  # a launcher ends all processes when the first one is gone
        if isinstance(error, TreerlError):
            error.shared = world.size > 1
            error.said = not world.first_to_say(str(error))
        raise
    world.close()


def _claim(config: Config, world: World) -> RunFolder | None:
    """The folder of the run, in the process that writes it."""
    if world.rank > 0:
        return None
    output = None if config.output is None else Path(config.output)
    return folder.create(output, config.recipe)


def _record(
    session: Session,
    place: RunFolder,
    console: Console,
    write_page: Callable[[Path], Path],
    world: World,
) -> None:
    """The run with those who look on."""
    config = session.config
    manifest = manifest_of(config, session.plan.table()["run"], device_of(config, world))
    place.write_config(dump(config))
    manifest.plugins = plugins.keep(config, place.path)
    display = Display(console, str(place.path))
    try:
        Run(session, (Recorder(place, manifest), display)).execute()
    finally:
        display.say(f"report: {write_page(place.path)}")
