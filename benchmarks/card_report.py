"""The figures of `card.py` for people: what machine and model they are of, and tables."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from treerl.run.session import Session


def facts(session: Session) -> dict[str, Any]:
    """The machine, the versions and the settings that the figures depend on."""
    backbone = session.backbone
    config = session.config
    cuda = backbone.device.type == "cuda"
    processor = f"{platform.machine()}, {os.cpu_count()} CPUs, one thread"
    about = backbone.describe()
    return {
        "device": torch.cuda.get_device_name(backbone.device) if cuda else processor,
        "clock": "wall, synchronised" if cuda else "CPU time",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "torch": version("torch"),
        "diffusers": version("diffusers"),
        "backbone": config.backbone.name,
        "parameters": sum(about["weights"].values()),
        "latent": about["latent_shape"],
        "size": [about.get("height"), about.get("width"), about.get("frames")],
        "dtype": config.backbone.params.get("dtype", "float32"),
        "rows": session.trainer.micro_batch_size,
        "steps": config.env.steps,
        "guidance": config.env.guidance,
        "trainable": config.train.trainable,
        "lora_rank": config.train.lora_rank if config.train.trainable == "lora" else None,
        "gradient_checkpointing": config.train.gradient_checkpointing,
        "compiled": backbone.compiled,
        "recipe": config.recipe,
    }


def report(figures: Mapping[str, Any]) -> None:
    """Every section as a table."""
    console = Console()
    for name, value in figures["machine"].items():
        console.print(f"{name.replace('_', ' ')}: {value}", highlight=False)
    primitives = figures["primitives_ms"]
    console.print(_table("primitives, ms", primitives, ".2f"))
    iteration = figures["iteration"]
    prompts = f"{iteration['prompts']} prompts, mean of {iteration['iterations']}"
    seconds = dict(iteration["seconds"])
    for name in ("floor", "computed"):
        seconds[f"/ {name}"] = _over(seconds["measured"], seconds[name])
    console.print(_table(f"an iteration, seconds ({prompts})", seconds, ".3f"))
    simple = seconds["node_by_node"]["all"] / seconds["measured"]["all"]
    how = "one row measured, extrapolated by the counts"
    console.print(f"node by node ({how}): {simple:.2f} of the measured", highlight=False)
    rows = figures["recipes"]
    recipes = {row["recipe"]: row["seconds"] | {"ratio": row["ratio"]} for row in rows}
    title = f"27 leaves a prompt, seconds ({rows[0]['prompts']} prompts; {rows[0]['how']})"
    console.print(_table(title, recipes, ".3f"))
    if figures["peak_memory_gib"]:
        console.print(_table("peak memory, GiB", {"": figures["peak_memory_gib"]}, ".1f"))


def _over(measured: Mapping[str, float], floor: Mapping[str, float]) -> dict[str, float]:
    return {name: value / floor[name] for name, value in measured.items() if floor[name] > 0}


def _table(title: str, columns: Mapping[str, Mapping[str, float]], form: str) -> Table:
    """A column for each mapping, a row for each of its keys."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for name in columns:
        shown.add_column(name.replace("_", " "), justify="right")
    names: Sequence[str] = list(dict.fromkeys(key for column in columns.values() for key in column))
    for name in names:
        cells = [_cell(column.get(name), form) for column in columns.values()]
        shown.add_row(name, *cells)
    return shown


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
