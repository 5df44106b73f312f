"""Trained weights kept on the way: a folder that appears whole, and the one before it goes."""

import os
import shutil
from pathlib import Path

from treerl.backbone.contract import Backbone
from treerl.errors import InputError
from treerl.run.folder import storing

_PREFIX = "iteration-"


def save(backbone: Backbone, folder: Path, iteration: int) -> Path:
    """Publish `folder/iteration-NNNNNN` by one rename, then remove older ones."""
    target = folder / f"{_PREFIX}{iteration:06d}"
    draft = folder / f".{target.name}.{os.getpid()}"
    with storing(target):
        if target.exists():
            return target
        draft.mkdir(parents=True)
        try:
            backbone.save(draft)
            draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        for older in _all(folder)[:-1]:
            shutil.rmtree(older)
    return target


def newest(folder: Path) -> Path:
    """The last checkpoint of a run's `checkpoints` folder."""
    checkpoints = _all(folder)
    if not checkpoints:
        raise InputError(f"{folder}: expected a checkpoint in it, and there is none")
    return checkpoints[-1]


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())
