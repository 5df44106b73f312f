"""The command line: treerl run, plan, list."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from treerl import registry
from treerl.config import Config
from treerl.errors import InputError, TreerlError
from treerl.loading import parse_rewards, resolve
from treerl.prompts import chosen

app = typer.Typer(
    name="treerl",
    help="Tree reinforcement learning for diffusion and flow models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Name = Annotated[str | None, typer.Option(metavar="NAME")]
Backbone = Annotated[str | None, typer.Option(metavar="NAME", help="Model family (treerl list backbones).")]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="DIR_OR_ID",
        help="Hub id, folder, tiny, miniature or random; by default the backbone's published model.",
    ),
]
Reward = Annotated[
    list[str] | None, typer.Option(metavar="NAME[=WEIGHT]", help="Reward; repeat it for several (treerl list rewards).")
]
Watch = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Reward that is only watched: hacking shows there. Repeat it."),
]
Recipe = Annotated[str | None, typer.Option(metavar="NAME", help="Published algorithm (treerl list recipes).")]
Prompts = Annotated[Path | None, typer.Option(metavar="FILE", help="Prompts: .txt, .jsonl or .csv.")]
Output = Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder; by default the next runs/RECIPE-NNNN.")]
File = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Run file (YAML).")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="dotted.path=value", help="Change one setting; may be repeated.")
]
Allow = Annotated[
    bool, typer.Option("--allow-plugins", help="Let settings name classes in files of your own (their code is run).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(
    backbone: Backbone = None,
    model: Model = None,
    reward: Reward = None,
    watch: Watch = None,
    recipe: Recipe = None,
    prompts: Prompts = None,
    output: Output = None,
    config: File = None,
    set_: Set = None,
    allow_plugins: Allow = False,
) -> None:
    """Train a model from rewards. Without arguments: the built-in tiny model, on the CPU, in about two minutes."""
    resolved = _resolve(backbone, model, reward, watch, recipe, prompts, output, config, set_, allow_plugins)
    _announce_plugins(resolved)
    chosen(resolved)  # a bad prompt file is refused before anything heavy is imported
    _quiet()
    from treerl import run as runs

    runs.run(resolved, Console())


@app.command()
def plan(
    backbone: Backbone = None,
    model: Model = None,
    reward: Reward = None,
    watch: Watch = None,
    recipe: Recipe = None,
    prompts: Prompts = None,
    output: Output = None,
    config: File = None,
    set_: Set = None,
    allow_plugins: Allow = False,
    as_json: Json = False,
) -> None:
    """Print what a run would cost, without loading a model."""
    resolved = _resolve(backbone, model, reward, watch, recipe, prompts, output, config, set_, allow_plugins)
    _announce_plugins(resolved)
    from treerl.memory import memory
    from treerl.plan import Plan

    made = Plan(resolved)
    table = {**made.table(), "memory": memory(resolved, made)}
    print(json.dumps(table, indent=2)) if as_json else _print_plan(table)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="A run folder, or a checkpoint in one.")],
    target: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write; must not exist, or be empty.")],
) -> None:
    """Write what was trained as diffusers loads it by itself, and prove it in a fresh process."""
    _quiet()
    from treerl.export import export as exported

    found = exported(source, target)
    print(f"{found.folder}: {found.kind}")
    same = f"largest difference of a pixel {found.difference:.1e}"
    print(f"a fresh process with diffusers alone draws {found.prompt!r} as treerl does: {same}")
    if found.change is not None:
        print(f"mean change of a pixel that the LoRA makes: {found.change:.2g}")


@app.command()
def check(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="backbone.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, or ./mine.py:Class with --allow-plugins.")],
    model: Model = "miniature",
    set_: Set = None,
    allow_plugins: Allow = False,
) -> None:
    """Try a plug-in against its contract: what was expected, what came, how to mend it."""
    _quiet()
    from treerl.check import CHECKED

    if kind not in CHECKED:
        raise InputError(f"check: unknown kind {kind!r}; {registry.nearest(kind, list(CHECKED))}")
    resolved = resolve(None, {"backbone.name": name, "backbone.model": model}, set_ or [], allow_plugins)
    _announce_plugins(resolved)
    wrong = 0
    for finding in CHECKED[kind](resolved):
        print("\n".join(finding.lines()), flush=True)
        wrong += not finding.good
    if wrong:
        raise InputError(f"check: {name}: {wrong} of its statements do not hold")


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="backbones, rewards, envs, recipes, ...; all without it.")] = None,
    as_json: Json = False,
) -> None:
    """List the plug-ins and recipes that are installed."""
    from treerl.recipes import RECIPES

    known: dict[str, dict[str, str]] = {"recipes": {name: f"{r.title} ({r.source})" for name, r in RECIPES.items()}}
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


def _resolve(
    backbone: str | None,
    model: str | None,
    reward: list[str] | None,
    watch: list[str] | None,
    recipe: str | None,
    prompts: Path | None,
    output: Path | None,
    config: Path | None,
    sets: list[str] | None,
    allow_plugins: bool,
) -> Config:
    flags: dict[str, Any] = {
        "backbone.name": backbone,
        "backbone.model": model,
        "rewards": parse_rewards(reward) if reward else None,
        "watch": watch or None,
        "recipe": recipe,
        "prompts.train": str(prompts) if prompts else None,
        "output": str(output) if output else None,
    }
    return resolve(config, flags, sets or [], allow_plugins)


def _quiet() -> None:
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


def _announce_plugins(config: Config) -> None:
    used = [config.kernel.name, config.tree.window, config.advantage.weighting, config.advantage.baseline]
    used += [config.objective.name, config.backbone.name, config.env.name, *config.rewards, *config.watch]
    for name in used:
        if mark := registry.fingerprint(name):
            print(f"plug-in {name}: {mark}", file=sys.stderr)


def _print_plan(table: dict[str, Any]) -> None:
    console = Console()
    per_prompt = dict(table["per_prompt"])
    starts = per_prompt.pop("by_start")
    shown = Table(title=f"{table['recipe']}: expected work", title_justify="left")
    columns = {"per prompt": per_prompt, "per iteration": table["per_iteration"], "run": table["run"]}
    shown.add_column("")
    for column in columns:
        shown.add_column(column, justify="right")
    for name in dict.fromkeys(key for column in columns.values() for key in column):
        shown.add_row(name.replace("_", " "), *(_figure(column.get(name)) for column in columns.values()))
    console.print(shown)
    if len({row["sampling_forwards"] for row in starts}) > 1:
        for row in starts:
            print(f"window from step {row['start']}: {row['sampling_forwards']:,} sampling forwards a prompt")
    for name, value in table["memory"].items():
        print(f"{name.replace('_', ' ')}: {_figure(value)}")


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run the command line; every error of ours is one line and its exit code."""
    try:
        app()
    except TreerlError as error:
        for line in str(error).splitlines():
            print(f"treerl: {line}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:  # before the run has its own handler
        sys.exit(130)
