"""The command line: run, plan, bench, show, export, check, serve-reward, list."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import MISSING
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from treerl.bench.command import bench
from treerl.config.flags import Allow, Devices, Json, Model, Resume, Set, takes_settings
from treerl.errors import InputError, fault, printable, shorten, shown
from treerl.run.plan_command import plan

if TYPE_CHECKING:
    from treerl.config.schema import Config

app = typer.Typer(
    name="treerl",
    help="Tree reinforcement learning for diffusion and flow models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PluginName = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name, or ./mine.py:Class with --allow-plugins.")
]
RunOrCheckpoint = Annotated[
    Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run folder, or a checkpoint in one.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as package_version

        print(f"treerl {package_version('treerl')}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Tree reinforcement learning for diffusion and flow models."""


@app.command()
@takes_settings
def run(
    config: "Config", resume: Resume = None, devices: Devices = 1, allow_plugins: Allow = False
) -> None:
    """Train a model from rewards. Without arguments: the built-in tiny model, on the CPU."""
    from rich.console import Console

    from treerl.config.announce import announce
    from treerl.report import page
    from treerl.run.start import start

    if devices > 1 and "WORLD_SIZE" not in os.environ:
        from treerl.run.launch import launch

        raise typer.Exit(launch(devices, sys.argv[1:], config.parallel.timeout))
    started = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if devices > 1 and started != str(devices):
        raise InputError(
            f"--devices: expected {shorten(started)}, as many processes as were started here, or "
            f"none, got {devices}"
        )
    if os.environ.get("RANK", "0") == "0":
        announce(config)
    start(config, Console(), page.write, resume, allow_plugins)


app.command()(plan)
app.command()(bench)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
) -> None:
    """Write the page of a run anew, from its folder."""
    from treerl.report import page

    print(shown(page.write(folder), 4096))


@app.command()
def export(
    source: RunOrCheckpoint,
    target: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The folder to write; must not exist, or be empty."),
    ],
    allow_plugins: Allow = False,
) -> None:
    """Write what was trained as others load it by itself, and prove it in a fresh process."""
    from treerl.run.export import export as write

    for line in write(source, target, allow_plugins).lines():
        print(printable(line))


@app.command("serve-reward")
def serve_reward(
    name: PluginName,
    host: Annotated[
        str, typer.Option(help="Another than this machine's own needs TREERL_REWARD_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    set_: Set = None,
    allow_plugins: Allow = False,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
) -> None:
    """Put a reward behind HTTP, for runs with --set scoring.executor=http://HOST:PORT."""
    from treerl.config.announce import announce
    from treerl.config.resolve import resolve
    from treerl.config.yaml import Item
    from treerl.reward.serving import serve, work

    if worker:  # the process of a run's own worker, which was allowed there
        work(name)
        return
    flags = {"rewards": Item.of({name: 1.0}, "NAME")}
    config = resolve(None, flags, set_ or [], allow_plugins)
    announce(config)
    setting = config.rewards[name]
    timeout = setting.timeout or config.scoring.timeout
    serve(name, setting.params, host, port, print, timeout)


@app.command()
def check(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="backbone, reward, weighting, ...")],
    name: PluginName,
    model: Model = None,
    set_: Set = None,
    allow_plugins: Allow = False,
) -> None:
    """Try a plug-in against its contract: what was expected, what came, how to mend it."""
    from treerl.check.kinds import findings

    wrong = 0
    for finding in findings(kind, name, model, set_ or [], allow_plugins):
        print(printable_lines(finding.lines()), flush=True)
        wrong += finding.wrong
    if wrong:
        raise InputError(f"check: {name}: {wrong} of its statements do not hold")


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="backbones, rewards, envs, recipes, ...; all without it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the plug-ins and recipes that are installed."""
    from treerl import registry
    from treerl.engine.sources import SOURCES

    known: dict[str, dict[str, str]] = {"recipes": dict(SOURCES)}
    for plural in registry.CONTRACTS:
        points = registry.announced(plural).items()
        known[plural] = {name: point.value for name, point in points}
    if kind is not None and kind not in known:
        raise InputError(f"unknown kind {kind!r}; {registry.nearest(kind, list(known))}")
    shown = known if kind is None else {kind: known[kind]}
    if as_json:
        print(json.dumps(shown, indent=2))
        return
    for title, rows in shown.items():
        print(title)
        for name, about in rows.items():
            print(f"  {name:<16} {about}")
            for line in _parameters(title, name) if kind in registry.CONTRACTS else ():
                print(f"    {line}")


def _parameters(kind: str, name: str) -> Iterator[str]:
    """What a plug-in's parameters are, one line each."""
    from treerl import registry

    if kind == "envs":
        return
    try:
        holder = registry.parameters(kind, name)
    except InputError as error:  # its package lacks something
        yield printable(error)
        return
    for parameter, field in registry.fields(holder).items():
        default = "" if field.default is MISSING else f"; {shorten(field.default)}"
        yield f"{parameter}: {registry.words(holder, parameter)}{default}"


def printable_lines(lines: list[str]) -> str:
    """Lines that hold text from outside."""
    return "\n".join(printable(line) for line in lines)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; every error of ours is one line and its exit code."""
    # before torch is imported: on a busy machine spinning OpenMP threads are far slower
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    try:
        try:
            app(arguments)
        finally:
            if sys.stdout is not None:  # None when it is closed
                sys.stdout.flush()
    except KeyboardInterrupt:  # before the run has its own handler
        sys.exit(130)
    except BaseException as error:  # SystemExit, too: a plug-in does not decide how a run ends
        known = fault(error)
        if known is None:
            raise
        # before processes know of each other, the first of each machine speaks for those beside it
        if not known.said and (known.shared or os.environ.get("LOCAL_RANK", "0") == "0"):
            for line in str(known).splitlines():
                print(f"treerl: {printable(line, 2000)}", file=sys.stderr)
        if isinstance(error, OSError):  # what stdout did not take is not tried again at the exit
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(known.code)
