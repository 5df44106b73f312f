"""Reading a run folder: what is wrong in it is named in one line; a live run can be read."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from recorded import create, manifest

from treerl.errors import InputError, StorageError
from treerl.run.folder import RunFolder
from treerl.run.reading import read


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with nothing but a manifest."""
    folder = create(tmp_path / "run", "treegrpo")
    folder.write_manifest(manifest())
    return folder.path


def test_text_that_no_encoding_has_is_spelled_out(run: Path) -> None:
    RunFolder(run).write_manifest(manifest().model_copy(update={"command": ["\udc80"]}))
    assert read(run).manifest.command == ["\\udc80"]


def test_the_line_that_is_being_written_is_left_out(run: Path) -> None:
    (run / "metrics.jsonl").write_bytes(b'{"iteration": 1}\n{"iteration": 2, "rew\xff')
    assert [row.iteration for row in read(run).rows] == [1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\n", ":1: Invalid JSON"),
        (b'{"iteration": 1}\n{"iter\n', ":2: Invalid JSON"),
        (b'{"iteration": 1}\n{"iteration": 1}\n', ":2: iteration 1 comes after 1"),
        (b'{"iteration": 0}\n', ":1: iteration"),
        (b'{"iteration": 1, "reward": true}\n', ":1: reward: expected a number, got bool"),
        (b'{"iteration": 1, "a": {"b": []}}\n', ":1: a"),
        (b'{"iteration": 1, "reward": 1' + b"0" * 400 + b"}\n", ":1: reward: expected a number of"),
        (b'{"iteration": 1, "a": \xff}\n', ":1: Invalid JSON"),
        (b"[" * 100_000 + b"\n", ":1: Invalid JSON"),
        (b'{"iteration": 1, "heldout": {"reward": 1}}\n', ":1: heldout.samples: Field required"),
    ],
)
def test_a_row_that_no_run_wrote_is_named_by_its_line(
    run: Path, content: bytes, problem: str
) -> None:
    (run / "metrics.jsonl").write_bytes(content)
    with pytest.raises(StorageError) as caught:
        read(run)
    assert str(caught.value).startswith(f"{run / 'metrics.jsonl'}{problem}")
    assert len(str(caught.value).splitlines()) == 1


def _edited(**changes: object) -> str:
    return json.dumps(manifest().model_dump(by_alias=True) | changes)


MANIFESTS = {
    "format: Input should be 3": _edited(format=2),
    "status: Input should be": _edited(status="\x1b[31mgone"),
    "plan.leaves: expected a number, got str": _edited(plan={"leaves": "<b>"}),
    "evaluation.before": _edited(evaluation={"before": {"reward": "much"}}),
    "plugins.0.sha256": _edited(plugins=[{"name": "", "path": "", "sha256": "", "copy": ""}]),
    "extra: Extra inputs are not permitted": _edited(extra=1),
    "Input should be an object": "[]",
    "Invalid JSON": "{",
}


@pytest.mark.parametrize("problem", MANIFESTS)
def test_a_manifest_that_no_run_wrote_is_named_by_its_field(run: Path, problem: str) -> None:
    (run / "manifest.json").write_text(MANIFESTS[problem])
    with pytest.raises(StorageError) as caught:
        read(run)
    assert str(caught.value).startswith(f"{run / 'manifest.json'}: {problem}")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


NODE = {
    "stochastic": False,
    "trained": False,
    "advantage": None,
    "value": 0,
    "score": None,
    "image": None,
}


@pytest.mark.parametrize(
    "edges",
    [[(0, 0, 0)], [(1, -1, 0)], [(0, -1, 0), (1, 2, 1)], [(0, -1, 0), (1, 0, 5)], [(0, -1, 3)]],
)
def test_nodes_out_of_order_are_no_tree(run: Path, edges: list[tuple[int, int, int]]) -> None:
    nodes = [{"id": i, "parent": parent, "step": step, **NODE} for i, parent, step in edges]
    tree = {"iteration": 1, "prompt": "", "steps": 2, "nodes": nodes}
    (run / "trees" / "last.json").write_text(json.dumps(tree))
    with pytest.raises(StorageError, match=r"last\.json: node \d"):
        read(run)


@pytest.mark.parametrize(
    "name", ["../a.png", "/a.png", "b/a.png", "..", "", "a\0.png", "x" * 99 + ".png", "a.png\n", 7]
)
def test_the_name_of_an_image_leads_nowhere_else(run: Path, name: object) -> None:
    shot = {"image": name, "score": 1}
    samples = {"samples": [{"prompt": "", "before": shot}]}
    (run / "samples" / "samples.json").write_text(json.dumps(samples))
    with pytest.raises(StorageError, match=r"samples\.json: samples\.0\.before\.image"):
        read(run)


def _no_manifest(run: Path) -> None:
    (run / "manifest.json").unlink()


def _folder_for_a_file(run: Path) -> None:
    (run / "metrics.jsonl").mkdir()


def _pipe_for_a_file(run: Path) -> None:
    os.mkfifo(run / "metrics.jsonl")


def _endless(run: Path) -> None:
    with (run / "metrics.jsonl").open("wb") as file:
        file.truncate(1 << 40)


def _no_yaml(run: Path) -> None:
    (run / "config.yaml").write_text("a: [\x00")


def _list_of_settings(run: Path) -> None:
    (run / "config.yaml").write_text("[1, 2]")


@pytest.mark.parametrize(
    "harm",
    [_no_manifest, _folder_for_a_file, _pipe_for_a_file, _endless, _no_yaml, _list_of_settings],
)
def test_a_folder_that_is_no_runs_is_refused_in_one_line(
    run: Path, harm: Callable[[Path], None]
) -> None:
    harm(run)
    with pytest.raises(InputError if harm is _no_manifest else StorageError) as caught:
        read(run)
    assert str(run) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
