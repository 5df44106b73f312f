"""The drawing of a tree: every sampled edge once with its advantage, every deterministic chain as one line."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from treerl.errors import StorageError
from treerl.report import markup, report


def make_tree(
    folder: Path, window: Sequence[int], branch: int, roots: int, steps: int = 10
) -> dict[str, Any]:
    """Trees that split `branch` ways at each step of the window (chains of sampled steps when it is 1)."""
    folder.mkdir(parents=True)
    luck = random.Random(7)
    nodes: list[dict[str, Any]] = [
        {"id": i, "parent": -1, "step": 0, "stochastic": False} for i in range(roots)
    ]
    level = list(nodes)
    for step in range(steps):
        level = [
            {"parent": parent["id"], "step": step + 1, "stochastic": step in window}
            for parent in level
            for _ in range(branch if step in window else 1)
        ]
        for node in level:
            node["id"] = len(nodes)
            nodes.append(node)
    for node in level:
        node["score"] = round(min(1.0, max(0.0, luck.gauss(0.7, 0.22))), 3)
        node["picture"] = f"leaf-{node['id']}.png"
        Image.new("RGB", (32, 32), (round(255 * node["score"]), 90, 90)).save(
            folder / node["picture"]
        )
    for node in reversed(nodes):
        below = [child["value"] for child in nodes if child["parent"] == node["id"]]
        node["value"] = sum(below) / len(below) if below else node["score"]
    mean = sum(node["value"] for node in nodes[:roots]) / roots
    for node in nodes:
        if node["stochastic"]:
            node["advantage"], node["weight"] = round((node["value"] - mean) / 0.2, 4), 1 / branch
    tree = {
        "iteration": 60,
        "prompt": "a red circle on the left",
        "steps": steps,
        "window": list(window),
    }
    (folder / "tree.json").write_text(json.dumps({**tree, "nodes": nodes}))
    return {**tree, "nodes": nodes}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "manifest.json").write_text("{}")
    return tmp_path


FORESTS = {
    (2, 3, 4, 3, 1): (39, 28),
    (1, 2, 3, 4, 2, 1): (30, 17),
    (*range(10), 1, 12): (120, 0),
    (0, 5, 2, 2): (12, 12),
}


@pytest.mark.parametrize("shape", FORESTS)
def test_draws_each_sampled_edge_once_and_each_chain_as_one_line(
    run: Path, shape: tuple[int, ...]
) -> None:
    *window, branch, roots = shape
    sampled, straight = FORESTS[shape]
    tree = make_tree(run / "trees", window, branch, roots)
    page = report.write(run).read_text(encoding="utf-8")
    assert page.count('class="sde ') == sampled == sum(node["stochastic"] for node in tree["nodes"])
    assert page.count('class="ode"') == straight
    for node in tree["nodes"]:
        if node["stochastic"]:
            assert (
                markup.signed(node["advantage"]) in page
                and f"advantage {markup.show(node['advantage'])}" in page
            )


@pytest.mark.parametrize(
    "nodes", [[{"id": 1, "parent": 0}], [{"id": 0, "parent": -1}] * 2, [{"id": 0, "parent": 0}]]
)
def test_a_tree_out_of_order_is_refused(run: Path, nodes: object) -> None:
    (run / "trees").mkdir()
    (run / "trees/tree.json").write_text(json.dumps({"nodes": nodes}))
    with pytest.raises(StorageError, match=r"tree\.json"):
        report.write(run)


def test_odd_trees_are_drawn_too(run: Path) -> None:
    (run / "trees").mkdir()
    odd: list[dict[str, Any]] = [
        {"id": 0, "parent": -1, "step": 1e9, "advantage": "x"},
        {"id": 1, "parent": 0},
    ]
    several: list[list[dict[str, Any]]] = [[], [{"id": 0}], odd]
    for nodes in several:
        (run / "trees/tree.json").write_text(
            json.dumps({"nodes": nodes, "window": 3, "steps": None})
        )
        assert "One tree" in report.write(run).read_text(encoding="utf-8")
