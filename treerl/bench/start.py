"""`treerl bench`: tune, compare, and tell; begun, or taken up where it was ended."""

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from treerl.bench.comparison import Comparison
from treerl.bench.declared import Declared
from treerl.bench.devices import device_name, environments
from treerl.bench.files import Declaration
from treerl.bench.folder import BenchFolder, opened
from treerl.bench.progress import Progress
from treerl.config.schema import Config
from treerl.errors import Stopped
from treerl.run.folder import now
from treerl.run.signals import interruptible

_PACKAGES = ("treerl", "torch", "diffusers", "transformers", "peft", "numpy")


@dataclass(frozen=True)
class Wishes:
    """What does not change the figures of a cell."""

    output: Path | None = None  # the folder; None is the next runs/bench-NNNN
    jobs: int | None = None  # cells side by side; None is as many as there are devices or cores
    score: str | None = None  # None is right, or else reward
    levels: tuple[float, ...] | None = None  # None are those of right
    say: Callable[[str], None] = print


def start(declared: Declared, wishes: Wishes) -> Path:
    """Compare as declared; the folder. Cells that ended there before are not trained again."""
    config = declared.given.config()  # what is wrong for all is told once, before each recipe's
    tuned = declared.tuning()
    untuned = declared.compared({variant: () for variant in declared.variants})
    with opened(wishes.output) as folder, interruptible() as interrupt:
        comparison = Comparison(
            declared=declared,
            folder=folder,
            declaration=_declare(declared, wishes, config, folder),
            environments=environments(config, wishes.jobs, len(tuned or untuned)),
            progress=Progress(wishes.say, len(tuned) + len(untuned), folder.path),
            check_interrupt=interrupt.check,
            rows=folder.rows(),
        )
        try:
            comparison.run(tuned)
        except Stopped:
            comparison.progress.stopped(comparison.ended)
            raise
        finally:
            comparison.write()
    comparison.raise_what_failed()
    return folder.path


def _declare(
    declared: Declared, wishes: Wishes, config: Config, folder: BenchFolder
) -> Declaration:
    """What is compared, as bench.json keeps it; versions are those of this start."""
    versions = {"python": platform.python_version()}
    versions |= {package: version(package) for package in _PACKAGES}
    sweep = {}
    if declared.sweep is not None:
        for variant in declared.variants:
            tried = declared.sweep.settings(variant)
            sweep[variant.label] = [list(settings) for settings in tried]
    model = config.backbone.params.get("model")
    named = isinstance(model, str)
    return folder.declare(
        Declaration(
            started=now(),
            command=[Path(sys.argv[0]).name, *sys.argv[1:]],
            model=f"{config.backbone.name} ({Path(str(model)).name})"
            if named
            else config.backbone.name,
            rewards=[f"{setting.weight:g} × {name}" for name, setting in config.rewards.items()],
            recipes=[variant.label for variant in declared.variants],
            budget=declared.budget.text,
            marks=declared.marks,
            seeds=list(declared.seeds),
            sweep=sweep,
            tuning_seeds=list(declared.tuning_seeds) if sweep else [],
            tune_by=declared.tune_by,
            score=wishes.score,
            levels=None if wishes.levels is None else list(wishes.levels),
            device=device_name(config),
            versions=versions,
        )
    )
