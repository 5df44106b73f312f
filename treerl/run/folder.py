"""Makes a run folder, which one run alone gets, and writes its files while the run goes on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from torch import Tensor

from treerl.engine.step import Step
from treerl.engine.task import Task
from treerl.run import durable, images, reading
from treerl.run.durable import storing
from treerl.run.evaluate import Evaluation
from treerl.run.files import (
    Manifest,
    MetricsRow,
    SampleRow,
    SamplesFile,
    Shot,
    TreeFile,
    TreeNode,
    checked,
    plain,
)
from treerl.run.showing import SHOWN

_LEAVES = 64  # leaves of a tree whose images a run keeps


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class RunFolder:
    """Writes into a run folder; a JSON file appears whole, by one rename."""

    path: Path

    def write_config(self, text: str) -> None:
        """The resolved configuration."""
        self._publish("config.yaml", text)

    def write_manifest(self, manifest: Manifest) -> None:
        """Where the run comes from and how it stands."""
        self._publish_model("manifest.json", manifest)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl; a number that is not finite becomes null."""
        path = self.path / "metrics.jsonl"
        line = self._metrics_line(row)
        with storing(path), path.open("a", encoding="utf-8") as file:
            file.write(line)

    def amend_metrics(self, row: Mapping[str, Any]) -> None:
        """Put another row in the place of the last one."""
        path = self.path / "metrics.jsonl"
        with storing(path):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        self._publish(path.name, "".join([*lines[:-1], self._metrics_line(row)]))

    def _metrics_line(self, row: Mapping[str, Any]) -> str:
        valid = checked(MetricsRow, plain(row), str(self.path / "metrics.jsonl"))
        return json.dumps(valid.model_dump(exclude_unset=True), allow_nan=False) + "\n"

    def cut_metrics(self, iteration: int) -> list[MetricsRow]:
        """Drop the rows after an iteration, and a torn one; those that are left."""
        kept = []
        for row in reading.read_metrics(self.path):
            if row.iteration <= iteration:
                kept.append(row)
        if kept:
            text = (self.path / "metrics.jsonl").read_text(encoding="utf-8")
            self._publish("metrics.jsonl", "".join(text.splitlines(keepends=True)[: len(kept)]))
        else:
            (self.path / "metrics.jsonl").unlink(missing_ok=True)
        return kept

    def force_metrics(self) -> None:
        """See to it that the rows so far survive a crash of the machine."""
        durable.force(self.path / "metrics.jsonl")

    def write_before(self, before: Evaluation) -> None:
        """The first sample of every held-out task, before training."""
        samples = []
        for number, row in enumerate(_first_rows(before)):
            prompt = _prompt(before.samples.tasks[row])
            shot = self._shot(before, row, f"before-{number:03d}.png")
            samples.append(SampleRow(prompt=prompt, before=shot))
        self._publish_model(reading.SAMPLES, SamplesFile(samples=samples))

    def write_after(self, after: Evaluation) -> None:
        """The same tasks from the same noise, after training, beside what was drawn before."""
        samples = list(reading.read_samples(self.path))
        for number, (sample, row) in enumerate(zip(samples, _first_rows(after), strict=True)):
            sample.after = self._shot(after, row, f"after-{number:03d}.png")
        self._publish_model(reading.SAMPLES, SamplesFile(samples=samples))

    def write_tree(self, name: Literal["first", "last"], step: Step, weights: Tensor) -> None:
        """The trees of the iteration's first task, with the images of their leaves."""
        tree = step.tree
        total = (step.scores @ weights.to(step.scores)).tolist()  # [N], NaN at inner nodes
        nodes = (tree.task == 0).nonzero().flatten().tolist()
        place = {node: number for number, node in enumerate(nodes)}
        self._make_folder(f"trees/{name}")
        names: dict[int, str | None] = {}  # the image of each leaf
        leaves = tree.here(tree.leaves)
        leaves = leaves[tree.task[leaves] == 0][:_LEAVES]
        if len(leaves):
            drawn = step.samples(leaves).images
            for row, leaf in enumerate(leaves.tolist()):
                names[leaf] = self._draw(f"trees/{name}/leaf-{row:03d}.png", drawn, row)
        first_leaf = int(tree.leaves[0])
        rows = []
        for node in nodes:
            stochastic = bool(tree.stochastic[node])
            rows.append(
                TreeNode(
                    id=place[node],
                    parent=place.get(int(tree.parent[node]), TreeFile.ROOT),
                    step=int(tree.step[node]),
                    stochastic=stochastic,
                    trained=bool(step.trained[node]),
                    advantage=float(step.advantages.advantage[node]) if stochastic else None,
                    value=float(step.advantages.values[node]),
                    score=total[node] if node >= first_leaf else None,
                    image=names.get(node),
                )
            )
        prompt = _prompt(step.tasks[0])
        file = TreeFile(iteration=step.iteration + 1, prompt=prompt, steps=tree.steps, nodes=rows)
        self._publish_model(f"trees/{name}.json", file)

    def _shot(self, evaluation: Evaluation, row: int, name: str) -> Shot:
        right = evaluation.measures.get("right")
        return Shot(
            image=self._draw(f"samples/{name}", evaluation.samples.images, row),
            score=float(evaluation.total[evaluation.row(row)]),
            right=None if right is None else float(right[evaluation.row(row)]),
        )

    def _draw(self, name: str, samples: Tensor, row: int) -> str | None:
        """The file name of the image of a sample; None where samples are no images."""
        if not images.are_images(samples):
            return None
        path = self.path / name
        with storing(path):
            images.save(path, samples[row])
        return path.name

    def _make_folder(self, name: str) -> None:
        path = self.path / name
        with storing(path):
            path.mkdir(exist_ok=True)

    def _publish_model(self, name: str, model: BaseModel) -> None:
        content = model.model_dump(by_alias=True)
        valid = checked(type(model), plain(content), str(self.path / name))
        text = json.dumps(valid.model_dump(by_alias=True), indent=1, allow_nan=False)
        self._publish(name, text + "\n")

    def _publish(self, name: str, text: str) -> None:
        durable.publish_file(self.path / name, text)


def _first_rows(evaluation: Evaluation) -> list[int]:
    """The first row of each task that a run shows: groups (5, 5, 7) give 0, 2."""
    rows: dict[int, int] = {}
    for row, group in enumerate(evaluation.samples.group.tolist()):
        rows.setdefault(group, row)
    return list(rows.values())[:SHOWN]


def _prompt(task: Any) -> str:
    return task.prompt if isinstance(task, Task) else str(task)
