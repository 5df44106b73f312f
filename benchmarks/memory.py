"""The peak memory that `treerl plan --memory` predicts, beside what a card says.

    python benchmarks/memory.py                      # sd35, flux and wan, random weights, on a GPU
    python benchmarks/memory.py --backbones sd35 --rows 4 13 --set env.guidance=1
    python benchmarks/memory.py --dry-run            # the tiny model; on the CPU: predictions only

Each phase is called by itself, the way `treerl plan --measure` does, between a reset of the peak
and a look at it. Prints a table row for each phase and one line of JSON for each model.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import torch

from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.run.assemble import build
from treerl.run.forecast import Forecast
from treerl.run.measure import rehearsal_of
from treerl.run.quiet import quiet

COLUMNS = ("model", "rows", "phase", "predicted, GiB", "measured, GiB", "predicted / measured")


# what a run calls them, and what is called of each: the larger one counts
PHASES = {"rollout": ("window", "tails"), "decode": ("decode",), "update": ("update",)}


def settings(name: str, model: str, rows: int, sets: Sequence[str]) -> Config:
    """The backbone's preset on random weights, with so many rows in a forward."""
    flags = {"backbone.name": name, "backbone.model": model, "rewards": {"jpeg": 1.0}}
    ours = ["recipe=treegrpo", f"train.micro_batch_size={rows}"]
    return resolve(None, flags, [*ours, *sets])


def predicted(config: Config) -> dict[str, int]:
    """Bytes by phase, without what only a whole run keeps: latents of trees, other conditions."""
    forecast = Forecast.of(config)
    if forecast is None:
        raise SystemExit(f"{config.backbone.name}: not known before the model is loaded")
    held = forecast.held
    peak = forecast.at(config.train.micro_batch_size)
    compares = forecast.rehearsal.algorithm.objective.weight_set is not None
    apart = held.latents + held.conditions + held.others - compares * held.trained
    phases = {phase: peak.phases[phase] - apart for phase in PHASES}
    phases["rollout"] -= held.growing
    return phases


def measured(config: Config) -> dict[str, int] | None:
    """The same as torch.cuda.max_memory_allocated() tells it; None where there is no card."""
    if not torch.cuda.is_available():
        return None
    session = build(config)
    device = session.env.device
    try:
        rehearsal = rehearsal_of(session)
        rehearsal.update(1)()
        session.trainer.optimizer.step()  # its moments are there from now on
        session.trainer.optimizer.zero_grad()
        peaks = {}
        for phase, names in PHASES.items():
            works = [getattr(rehearsal, name)(config.train.micro_batch_size) for name in names]
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            for work in works:
                work()
            torch.cuda.synchronize(device)
            peaks[phase] = int(torch.cuda.max_memory_allocated(device))
            session.trainer.optimizer.zero_grad()
    finally:
        session.close()
        torch.cuda.empty_cache()
    return peaks


def compare(config: Config) -> dict[str, Any]:
    """Both, by phase."""
    told = predicted(config)
    figures = measured(config)
    rows = {}
    for phase, size in told.items():
        rows[phase] = {"predicted": size, "measured": None if figures is None else figures[phase]}
    card = None if figures is None else torch.cuda.get_device_name()
    return {
        "backbone": config.backbone.name,
        "settings": config.backbone.params,
        "rows": config.train.micro_batch_size,
        "card": card,
        "torch": torch.__version__,
        "phases": rows,
    }


def lines(figures: dict[str, Any]) -> list[str]:
    """The rows of the table."""
    shown = []
    for phase, both in figures["phases"].items():
        size = both["predicted"] / 2**30
        cells = [figures["backbone"], str(figures["rows"]), phase, f"{size:.3f}", "", ""]
        if both["measured"]:
            actual = both["measured"] / 2**30
            cells[-2:] = [f"{actual:.3f}", f"{size / actual:.3f}"]
        shown.append(f"| {' | '.join(cells)} |")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=["sd35", "flux", "wan"])
    parser.add_argument("--rows", nargs="+", type=int, default=[4, 9])
    parser.add_argument("--dry-run", action="store_true", help="the tiny model")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    options = parser.parse_args()
    quiet()
    names = ["sd35"] if options.dry_run else options.backbones
    model = "tiny" if options.dry_run else "random"
    if not torch.cuda.is_available():
        print("there is no card here: predictions only")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    records = []
    for name in names:
        for rows in options.rows:
            figures = compare(settings(name, model, rows, options.sets))
            print("\n".join(lines(figures)), flush=True)
            records.append(figures)
    for record in records:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
