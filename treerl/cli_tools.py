"""The commands beside run and plan: what is installed, whether it is right, and what was made."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from treerl import registry
from treerl.config.flags import Allow, Json, Model, Set
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.errors import InputError

tools = typer.Typer()


@tools.command()
def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run folder, or a checkpoint in one.")
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The folder to write; must not exist, or be empty."),
    ],
    allow_plugins: Allow = False,
) -> None:
    """Write what was trained as others load it, and prove it by loading it again."""
    quiet()
    from treerl.run.export import export as exported

    done = exported(source, target, allow_plugins)
    print(f"{done.folder}: {done.kind}{' (with a file for ComfyUI)' if done.comfyui else ''}")
    print(f"loaded again, it draws {done.prompt!r} as here: difference {done.difference:.1e}")
    if done.change is not None:
        print(f"mean change of a pixel that the LoRA makes: {done.change:.2g}")


@tools.command("serve-reward")
def serve_reward(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Its name, or ./mine.py:Class with --allow-plugins."),
    ],
    host: Annotated[
        str, typer.Option(help="Another than this machine's own needs TREERL_REWARD_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    set_: Set = None,
    allow_plugins: Allow = False,
) -> None:
    """Put a reward behind HTTP, for runs with --set scoring.where=http://HOST:PORT."""
    resolved = resolve(None, {"rewards": {name: 1.0}}, set_ or [], allow_plugins)
    announce_plugins(resolved)
    quiet()
    from treerl.reward.server import serve

    serve(name, resolved.scoring.options, host, port, print)


@tools.command()
def check(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="backbone or reward.")],
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Its name, or ./mine.py:Class with --allow-plugins."),
    ],
    model: Model = "miniature",
    set_: Set = None,
    allow_plugins: Allow = False,
) -> None:
    """Try a plug-in against its contract: what was expected, what came, how to mend it."""
    quiet()
    from treerl.check import CHECKED

    if kind not in CHECKED:
        raise InputError(f"check: unknown kind {kind!r}; {registry.nearest(kind, list(CHECKED))}")
    chosen = (
        {"backbone.name": name, "backbone.model": model}
        if kind == "backbone"
        else {"rewards": {name: 1.0}}
    )
    resolved = resolve(None, chosen, set_ or [], allow_plugins)
    announce_plugins(resolved)
    wrong = 0
    for finding in CHECKED[kind](resolved):
        print("\n".join(finding.lines()), flush=True)
        wrong += not finding.good
    if wrong:
        raise InputError(f"check: {name}: {wrong} of its statements do not hold")


@tools.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="backbones, rewards, envs, recipes, ...; all without it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the plug-ins and recipes that are installed."""
    from treerl.recipes import RECIPES

    known: dict[str, dict[str, str]] = {
        "recipes": {name: f"{r.title} ({r.source})" for name, r in RECIPES.items()}
    }
    for one in registry.CONTRACTS:
        known[one] = {name: point.value for name, point in registry.announced(one).items()}
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


def announce_plugins(config: Config) -> None:
    used = [
        config.kernel.name,
        config.tree.window,
        config.advantage.weighting,
        config.advantage.baseline,
    ]
    used += [
        config.objective.name,
        config.backbone.name,
        config.env.name,
        *config.rewards,
        *config.watch,
    ]
    for name in used:
        if mark := registry.fingerprint(name):
            print(f"plug-in {name}: {mark}", file=sys.stderr)


def quiet() -> None:
    """Import what is heavy, without its bars and advice."""
    # before torch is imported: spinning OpenMP threads on a busy machine are many times slower than sleeping ones
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity(50)  # critical: what goes wrong is said by us, in one line
        logging.disable_progress_bar()
