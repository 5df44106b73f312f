"""The run folder: one run has it alone, and what is written is what is read."""

import json
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recorded import Recorded, create, manifest, pixels, record
from safetensors import SafetensorError, safe_open

from treerl.check.world import World
from treerl.errors import InputError, StorageError
from treerl.run.durable import storing
from treerl.run.files import Manifest, PluginFile, TreeFile
from treerl.run.folder import RunFolder
from treerl.run.reading import read


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(create(tmp_path_factory.mktemp("runs") / "run", "treegrpo"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with nothing but a manifest."""
    folder = create(tmp_path / "run", "treegrpo")
    folder.write_manifest(manifest())
    return folder.path


def _create(place: Path) -> str | None:
    os.chdir(place)
    try:
        return str(create(None, "treegrpo").path)
    except InputError:
        return None


def _create_named(output: Path) -> bool:
    try:
        create(output, "treegrpo")
    except InputError:
        return False
    return True


@pytest.mark.slow
def test_runs_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        folders = list(pool.map(_create, [tmp_path] * 24))
        owners = list(pool.map(_create_named, [tmp_path / "named"] * 8))
    assert sorted(map(str, folders)) == [f"runs/treegrpo-{n:04d}" for n in range(1, 25)]
    assert sum(owners) == 1


@pytest.mark.parametrize("empty", [False, True])
def test_one_of_many_threads_gets_a_named_folder(tmp_path: Path, empty: bool) -> None:
    for attempt in range(20):
        output = tmp_path / str(attempt)
        if empty:
            output.mkdir()
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(_create_named, [output] * 8)) == 1


def test_of_two_runs_that_saw_it_empty_one_gets_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path / "run", "treegrpo")
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(()))
    with pytest.raises(InputError, match=r"^output: "):
        create(tmp_path / "run", "treegrpo")


def test_the_next_number_follows_the_highest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("treegrpo-0007", "treegrpo-notes", "mixgrpo-0050", "treegrpo-code-0090"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert create(None, "treegrpo").path == Path("runs/treegrpo-0008")
    assert create(None, "treegrpo-code").path == Path("runs/treegrpo-code-0091")


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("taken", "taken/notes", "dangling"):
        with pytest.raises(InputError, match=r"^output: .* exists and is not empty; name another"):
            create(tmp_path / name, "treegrpo")
    with pytest.raises(StorageError, match="notes"):
        create(tmp_path / "taken" / "notes" / "run", "treegrpo")


def test_what_is_written_is_what_is_read(written: Recorded) -> None:
    folder = read(written.path)
    assert folder.manifest == Manifest.model_validate(written.manifest.model_dump(by_alias=True))
    assert folder.config["rewards"]["dark"]["weight"] == 0.25
    assert [row.model_dump(exclude_unset=True) for row in folder.rows] == written.rows
    assert sorted(path.name for path in written.path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
        "samples",
        "trees",
    ]


def test_samples_are_the_first_of_each_task(written: Recorded) -> None:
    folder = read(written.path)
    assert written.after is not None
    for number, sample in enumerate(folder.samples):
        row = 2 * number  # two samples were drawn of every task
        assert sample.prompt == f"a blue shape, number {number}"
        assert sample.after is not None
        pairs = ((sample.before, written.before), (sample.after, written.after))
        for shot, evaluation in pairs:
            assert shot.score == float(evaluation.total[row])
            assert shot.right == float(evaluation.measures["right"][row])
            assert shot.image is not None
            levels = pixels(written.path / "samples" / shot.image)
            assert torch.equal(levels, (evaluation.samples.images[row] * 255).round())
    assert len(folder.samples) == 3


def test_a_tree_keeps_the_first_tasks_nodes_and_the_images_of_its_leaves(written: Recorded) -> None:
    for name, step in (("first", written.first), ("last", written.last)):
        assert step is not None
        tree = read(written.path).trees[name]
        nodes = (step.tree.task == 0).nonzero().flatten().tolist()
        leaves = step.tree.leaves.tolist()
        files = {path.name for path in (written.path / "trees" / name).iterdir()}
        assert files == {f"leaf-{number:03d}.png" for number in range(8)}
        assert tree.iteration == step.iteration + 1
        assert tree.steps == step.tree.steps
        assert tree.prompt == "a blue shape, number 0"
        assert len(tree.nodes) == len(nodes) == 1 + 1 + 2 + 4 + 8 + 8 + 8
        finished = step.samples(torch.tensor(leaves))
        for node, place in zip(tree.nodes, nodes, strict=True):
            parent = int(step.tree.parent[place])
            assert node.parent == (nodes.index(parent) if parent >= 0 else -1)
            assert node.stochastic == bool(step.tree.stochastic[place])
            advantage = float(step.advantages.advantage[place])
            assert node.advantage == (advantage if node.stochastic else None)
            assert node.value == float(step.advantages.values[place])
            if place not in leaves:
                assert node.score is None
                assert node.image is None
                continue
            assert node.score == float(step.scores[place] @ torch.tensor([1.0, 0.25]).double())
            assert node.image is not None
            image = finished.images[leaves.index(place)]
            levels = pixels(written.path / "trees" / name / node.image)
            assert torch.equal(levels, (image * 255).round())


def test_samples_that_are_no_images_are_kept_without(tmp_path: Path) -> None:
    recorded = record(create(tmp_path / "run", "treegrpo"), iterations=1, env=World())
    folder = read(recorded.path)
    assert [sample.before.image for sample in folder.samples] == [None] * 3
    assert folder.trees["first"].nodes[-1].score is not None
    assert not list(recorded.path.rglob("*.png"))


def test_a_number_that_is_not_finite_is_null(run: Path) -> None:
    folder = RunFolder(run)
    loss = torch.tensor(0.5)
    row = {"iteration": 1, "reward": math.nan, "rewards": {"a": -math.inf}, "mine": loss}
    folder.append_metrics(row)
    written = manifest()
    written.seconds = {"train": math.inf}
    written.evaluation["before"] = {"reward": math.nan, "samples": 1}
    folder.write_manifest(written)
    record = read(run)
    assert record.rows[0].reward is None
    assert record.rows[0].rewards == {"a": None}
    assert record.rows[0].model_extra == {"mine": 0.5}
    assert record.manifest.seconds == {"train": None}
    summary = record.manifest.summary("before")
    assert summary is not None and summary.reward is None and summary.samples == 1


def test_a_row_that_is_no_figures_is_refused_when_it_is_written(run: Path) -> None:
    with pytest.raises(StorageError, match=r"metrics.jsonl: mine: expected a number, got str"):
        RunFolder(run).append_metrics({"iteration": 1, "mine": "a word"})
    assert not (run / "metrics.jsonl").exists()


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "manifest.json").read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"manifest\.json: No space left on device"):
        RunFolder(run).write_manifest(_done())
    assert (run / "manifest.json").read_bytes() == before
    assert not list(run.glob(".*"))


def _done() -> Manifest:
    content = manifest()
    content.status = "done"
    return content


def test_an_error_of_safetensors_is_one_of_storage(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"torn")
    with pytest.raises(StorageError, match=r"weights\.safetensors: .") as caught:
        with storing(path), safe_open(path, "pt"):
            pass
    assert isinstance(caught.value.__cause__, SafetensorError)


def test_a_plugin_file_is_kept_under_copy(run: Path) -> None:
    content = manifest()
    content.plugins = [PluginFile(name="a.py:A", path="/a.py", sha256="0" * 64, copy="plugins/a")]
    RunFolder(run).write_manifest(content)
    assert json.loads((run / "manifest.json").read_text())["plugins"][0]["copy"] == "plugins/a"
    assert read(run).manifest.plugins[0].kept == "plugins/a"


def test_a_large_tree_keeps_some_images_and_all_nodes(
    written: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treerl.run.folder._LEAVES", 3)
    folder = create(tmp_path / "run", "treegrpo")
    assert written.first is not None
    step = replace(written.first, iteration=6)
    folder.write_tree("last", step, torch.tensor([1.0, 0.25]))
    tree = TreeFile.model_validate_json((folder.path / "trees" / "last.json").read_bytes())
    assert tree.iteration == 7
    assert sum(node.image is not None for node in tree.nodes) == 3
    assert sum(node.score is not None for node in tree.nodes) == 8
