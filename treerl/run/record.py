"""Keeps a run in its folder while it goes on: figures, samples, trees and checkpoints."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import torch

from treerl.config.schema import Config
from treerl.engine.step import Step
from treerl.errors import Stopped
from treerl.run.evaluate import Evaluation
from treerl.run.files import Manifest, Process, Status
from treerl.run.folder import RunFolder, now
from treerl.run.run import Listener, Run

_PACKAGES = ("treerl", "torch", "diffusers", "transformers", "peft", "numpy", "safetensors")


class Recorder(Listener):
    """Writes the run folder; what was done so far stands there whatever ends the run."""

    def __init__(self, folder: RunFolder, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def began(self, run: Run) -> None:
        session = run.session
        parameters = session.trainer.optimizer.param_groups[0]["params"]
        self.manifest.trainable_parameters = sum(tensor.numel() for tensor in parameters)
        self.manifest.prompts = {"train": len(session.tasks), "heldout": len(session.heldout)}
        if run.before is not None:  # taken up again
            self.manifest.evaluation["before"] = run.before.summary()
        self._write(run)

    def replayed(self, run: Run, noise: float) -> None:
        self.manifest.replay_noise = noise
        self._write(run)

    def evaluated(self, run: Run, when: str, evaluation: Evaluation) -> None:
        if when == "before":
            self.folder.write_before(evaluation)
        elif when == "after":
            self.folder.write_after(evaluation)
        else:
            return
        self.manifest.evaluation[when] = evaluation.summary()
        self._write(run)

    def stepped(self, run: Run, step: Step, row: dict[str, Any]) -> None:
        self.folder.append_metrics(row)
        iterations = run.session.config.train.iterations
        if step.iteration == 0:
            self._draw_tree(run, "first", step)
        elif run.iterations == iterations:  # now: a run that is taken up at its end has no step
            self._draw_tree(run, "last", step)
        every = run.session.config.train.save_every
        if every and run.iterations % every == 0:
            self._write(run)

    def amended(self, run: Run, row: dict[str, Any]) -> None:
        self.folder.amend_metrics(row)

    def ended(self, run: Run, error: BaseException | None) -> None:
        manifest = self.manifest
        manifest.ended = now()
        manifest.status = _status(error)
        manifest.error = None if error is None else str(error) or type(error).__name__
        planned = run.session.config.train.iterations
        try:
            if run.last is not None and 0 < run.last.iteration < planned - 1:
                self._draw_tree(run, "last", run.last)
        finally:
            self._write(run)

    def _draw_tree(self, run: Run, name: Literal["first", "last"], step: Step) -> None:
        """The trees of the iteration's first task, with the images of their leaves."""
        leaves = step.tree.task[step.tree.leaves] == 0
        if bool(leaves.any()):  # else its trees were dropped
            self.folder.write_tree(name, step, run.session.rewards.weights)

    def _write(self, run: Run) -> None:
        manifest = self.manifest
        iterations = run.iterations
        optimizer_steps = iterations * run.session.plan.updates
        manifest.spent = {
            "iterations": iterations,
            **run.spent.plain(),
            "optimizer_steps": optimizer_steps,
            "seconds": round(run.seconds.get("train", 0.0), 3),
        }
        manifest.seconds = {name: round(value, 3) for name, value in run.seconds.items()}
        manifest.alarms = list(run.alarms)
        self.folder.write_manifest(manifest)


def manifest_of(config: Config, plan: dict[str, Any], device: torch.device) -> Manifest:
    """What is known when the run starts; its number is new."""
    name = str(device) if device.type == "cpu" else torch.cuda.get_device_name(device)
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        versions[package] = version(package)
    return Manifest(
        run=uuid4().hex,
        process=Process(host=platform.node(), pid=os.getpid()),
        treerl=version("treerl"),
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        started=now(),
        seed=config.seed,
        versions=versions,
        device=name,
        threads=torch.get_num_threads(),
        plan=plan,
    )


def _status(error: BaseException | None) -> Status:
    if error is None:
        return "done"
    return "interrupted" if isinstance(error, Stopped | KeyboardInterrupt) else "failed"
