"""The command line: treerl run, plan, list."""

import json
import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from treerl.cli_tools import announce_plugins, quiet, tools
from treerl.config.flags import (
    Allow,
    Backbone,
    File,
    Json,
    Model,
    Output,
    Prompts,
    Recipe,
    Reward,
    Set,
    Watch,
)
from treerl.config.resolve import parse_rewards, resolve
from treerl.config.schema import Config
from treerl.errors import TreerlError
from treerl.run.tasks import chosen

app = typer.Typer(
    name="treerl",
    help="Tree reinforcement learning for diffusion and flow models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(tools)


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
    resolved = _resolve(
        backbone, model, reward, watch, recipe, prompts, output, config, set_, allow_plugins
    )
    announce_plugins(resolved)
    chosen(resolved)  # a bad prompt file is refused before anything heavy is imported
    quiet()
    from treerl.run import run as runs

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
    resolved = _resolve(
        backbone, model, reward, watch, recipe, prompts, output, config, set_, allow_plugins
    )
    announce_plugins(resolved)
    from treerl.run.memory import memory
    from treerl.run.plan import Plan

    made = Plan(resolved)
    table = {**made.table(), "memory": memory(resolved, made)}
    print(json.dumps(table, indent=2)) if as_json else _print_plan(table)


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


def _print_plan(table: dict[str, Any]) -> None:
    console = Console()
    per_prompt = dict(table["per_prompt"])
    starts = per_prompt.pop("by_start")
    shown = Table(title=f"{table['recipe']}: expected work", title_justify="left")
    columns = {
        "per prompt": per_prompt,
        "per iteration": table["per_iteration"],
        "run": table["run"],
    }
    shown.add_column("")
    for column in columns:
        shown.add_column(column, justify="right")
    for name in dict.fromkeys(key for column in columns.values() for key in column):
        shown.add_row(
            name.replace("_", " "), *(_figure(column.get(name)) for column in columns.values())
        )
    console.print(shown)
    if len({row["sampling_forwards"] for row in starts}) > 1:
        for row in starts:
            print(
                f"window from step {row['start']}: {row['sampling_forwards']:,} sampling forwards a prompt"
            )
    for name, value in table["memory"].items():
        print(f"{name.replace('_', ' ')}: {_figure(value)}")


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:,.1f}"
        if isinstance(value, float)
        else str(value)
    )


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
