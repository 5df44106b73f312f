"""Makes a run folder, which one run alone gets, and writes its files while the run goes on."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from safetensors import SafetensorError
from torch import Tensor

from treerl.engine.task import Task
from treerl.engine.trainer import Step
from treerl.errors import InputError, StorageError, first_line, printable
from treerl.run import images
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


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns an error of the operating system or of safetensors about `path` into `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(printable(f"{path}: {error.strerror or error}")) from error
    except SafetensorError as error:
        raise StorageError(printable(f"{path}: {first_line(error)}")) from error


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def create(output: Path | None, recipe: str) -> "RunFolder":
    """Make the folder of a run, which no other run gets: `output` or the next runs/RECIPE-NNNN."""
    if output is not None:
        made = _claim(output)
        if made is None:
            text = f"output: {output} exists and is not empty; name another folder"
            raise InputError(printable(text))
        return RunFolder(output, made)
    runs = Path("runs")
    prefix = f"{recipe}-"
    names = [path.name.removeprefix(prefix) for path in runs.glob("*")]
    number = max((int(name) for name in names if name.isdecimal()), default=0) + 1
    while (made := _claim(runs / f"{recipe}-{number:04d}")) is None:
        number += 1
    return RunFolder(runs / f"{recipe}-{number:04d}", made)


def _claim(path: Path) -> tuple[Path, ...] | None:
    """Make `path` a run's folder; the folders that were made, None where it is another run's.

    An empty folder may be there already: of two runs that both see one, the one that makes
    `samples` has it.
    """
    made = []
    with storing(path):
        if os.path.lexists(path) and not path.is_dir():
            return None
        for folder in (*reversed(path.parents), path):
            if _make(folder):
                made.append(folder)
        if path not in made and any(path.iterdir()):
            return None
        if not _make(path / "samples"):
            return None
        (path / "trees").mkdir()
        (path / "checkpoints").mkdir()
    return (*made, path / "samples", path / "trees", path / "checkpoints")


def _make(folder: Path) -> bool:
    """Make one folder; False where it is there already."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir()
    except FileExistsError:  # made since we looked, or a file
        if not folder.is_dir():
            raise
        return False
    return True


@dataclass(frozen=True)
class RunFolder:
    """Writes into a run folder; a JSON file appears whole, by one rename."""

    path: Path
    made: tuple[Path, ...] = ()  # the folders that did not exist before, parents first

    def discard(self) -> None:
        """Take back what was made for a run that cannot begin; others' files stay."""
        for folder in reversed(self.made):
            with suppress(OSError):
                folder.rmdir()

    def write_config(self, text: str) -> None:
        """The resolved configuration."""
        self._publish("config.yaml", text)

    def write_manifest(self, manifest: Manifest) -> None:
        """Where the run comes from and how it stands."""
        self._publish_model("manifest.json", manifest)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl; a number that is not finite becomes null."""
        path = self.path / "metrics.jsonl"
        valid = checked(MetricsRow, plain(row), str(path))
        line = json.dumps(valid.model_dump(exclude_unset=True), allow_nan=False)
        with storing(path), path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write_samples(self, before: Evaluation, after: Evaluation | None) -> None:
        """The first sample of every held-out task, from the same noise before and after."""
        rows: dict[int, int] = {}  # the first row of each task: groups (5, 5, 7) give {5: 0, 7: 2}
        for row, group in enumerate(before.samples.group.tolist()):
            rows.setdefault(group, row)
        samples = []
        for number, row in enumerate(list(rows.values())[:SHOWN]):
            prompt = _prompt(before.samples.tasks[row])
            sample = SampleRow(
                prompt=prompt, before=self._shot(before, row, f"before-{number:03d}.png")
            )
            if after is not None:
                sample.after = self._shot(after, row, f"after-{number:03d}.png")
            samples.append(sample)
        self._publish_model("samples/samples.json", SamplesFile(samples=samples))

    def write_tree(self, name: Literal["first", "last"], step: Step, weights: Tensor) -> None:
        """The trees of the iteration's first task, with the images of their leaves."""
        tree = step.tree
        total = (step.scores @ weights.to(step.scores)).tolist()  # [N], NaN at inner nodes
        nodes = (tree.task == 0).nonzero().flatten().tolist()
        place = {node: number for number, node in enumerate(nodes)}
        self._make_folder(f"trees/{name}")
        names: dict[int, str | None] = {}  # the image of each leaf
        for row, leaf in enumerate(tree.here(tree.leaves).tolist()):
            if leaf in place and len(names) < _LEAVES:
                path = f"trees/{name}/leaf-{len(names):03d}.png"
                names[leaf] = self._draw(path, step.samples.images, row)
        rows = []
        for node in nodes:
            stochastic = bool(tree.stochastic[node])
            rows.append(
                TreeNode(
                    id=place[node],
                    parent=place.get(int(tree.parent[node]), TreeFile.ROOT),
                    step=int(tree.step[node]),
                    stochastic=stochastic,
                    advantage=float(step.advantages.advantage[node]) if stochastic else None,
                    value=float(step.advantages.values[node]),
                    score=total[node] if int(tree.step[node]) == tree.steps else None,
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
        path = self.path / name
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with storing(path):
            try:
                draft.write_text(text, encoding="utf-8")
                draft.replace(path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise


def _prompt(task: Any) -> str:
    return task.prompt if isinstance(task, Task) else str(task)
