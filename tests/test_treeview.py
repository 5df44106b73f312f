"""The drawing of a tree: each sampled edge once with its advantage, each chain as one line."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from recorded import create

from treerl.check.world import RAGGED, TASKS, Forest, forest
from treerl.engine.advantage import Advantages, advantages
from treerl.engine.baseline import Prompt
from treerl.engine.branching import window
from treerl.engine.normaliser import Standardised
from treerl.engine.step import Step
from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weighting import Uniform
from treerl.report import charts
from treerl.report.embed import Embedder
from treerl.report.treeview import Drawing, lay_out
from treerl.run.files import TreeFile


def _step(grown: Forest) -> Step:
    scores = Standardised()(grown.tree, grown.scores, grown.weights)
    credit = advantages(grown.tree, scores, Uniform(), Prompt(), TASKS)
    env = grown.env.with_tasks(TASKS)
    return Step(0, env, grown.tree, grown.scores, credit, grown.tree.stochastic, {})


def _drawing(folder: Path, step: Step) -> Drawing:
    run = create(folder / "run", "treegrpo")
    run.write_tree("first", step, torch.tensor([1.0, 0.25]))
    tree = TreeFile.model_validate_json((run.path / "trees" / "first.json").read_bytes())
    return lay_out(tree, Embedder(run.path))


CHAINS = TreeSpec((1,) * 6, (True,) * 5 + (False,))


@pytest.mark.parametrize(
    ("spec", "trees", "chains"), [(window(6, 1, 2, 2), 2, 10), (RAGGED, 1, 10), (CHAINS, 4, 4)]
)
def test_each_sampled_edge_is_drawn_once_and_each_chain_as_one_line(
    tmp_path: Path, spec: TreeSpec, trees: int, chains: int
) -> None:
    step = _step(forest(spec, trees))
    drawing = _drawing(tmp_path, step)
    edges = step.tree.edges[step.tree.task[step.tree.edges] == 0]
    assert len(drawing.edges) == len(edges)
    assert len(drawing.chains) == chains
    shown = sorted(edge.words.split("\n")[1] for edge in drawing.edges)
    values = step.advantages.advantage[edges].tolist()
    assert shown == sorted(f"advantage {charts.show(value)}" for value in values)
    signs = [edge.sign for edge in drawing.edges]
    assert signs.count("positive") == sum(value > 0 for value in values)
    assert signs.count("negative") == sum(value < 0 for value in values)
    assert max(edge.strength for edge in drawing.edges) == 1


def test_an_edge_that_the_update_left_out_is_marked(tmp_path: Path) -> None:
    step = _step(forest(window(6, 1, 2, 2), 2))
    edges = step.tree.edges[step.tree.task[step.tree.edges] == 0]
    trained = step.trained.clone()
    trained[edges[::3]] = False
    drawing = _drawing(tmp_path, replace(step, trained=trained))
    left_out = [edge for edge in drawing.edges if not edge.trained]
    assert len(left_out) == len(edges[::3])
    assert sorted(edge.words.split("\n")[1] for edge in left_out) == sorted(
        f"advantage {charts.show(value)}"
        for value in step.advantages.advantage[edges[::3]].tolist()
    )
    for edge in drawing.edges:
        assert edge.trained != edge.words.endswith("\nleft out of the update")


def test_along_a_chain_the_same_number_is_written_once(tmp_path: Path) -> None:
    drawing = _drawing(tmp_path, _step(forest(CHAINS, 4)))
    assert sum(edge.label != "" for edge in drawing.edges) == 4


def test_leaves_stand_apart_and_inside_the_drawing(tmp_path: Path) -> None:
    drawing = _drawing(tmp_path, _step(forest(window(6, 0, 3, 3), 1)))
    heights = [leaf.y for leaf in drawing.leaves]
    gaps = [low - high for high, low in pairwise(heights)]
    assert len(heights) == 27
    assert min(gaps) >= drawing.side
    assert max(gaps) > min(gaps)  # families are apart
    assert heights[-1] + drawing.side / 2 <= drawing.height
    assert drawing.columns[-1].x + drawing.columns[-1].width < drawing.image_x


def test_the_best_leaf_is_marked(tmp_path: Path) -> None:
    drawing = _drawing(tmp_path, _step(forest()))
    scores = [leaf.score for leaf in drawing.leaves if leaf.score is not None]
    assert len(scores) == len(drawing.leaves)
    assert [leaf.score for leaf in drawing.leaves if leaf.best] == [max(scores)]
    assert [leaf.score for leaf in drawing.leaves if leaf.bar == 0] == [min(scores)]


def test_a_tree_that_teaches_nothing_is_drawn_too(tmp_path: Path) -> None:
    step = _step(forest(flat=True))
    nothing = Advantages(step.advantages.advantage * 0, step.advantages.values * math.nan, 1)
    drawing = _drawing(tmp_path, replace(step, advantages=nothing))
    assert {edge.sign for edge in drawing.edges} == {"zero"}
    assert not any(leaf.best for leaf in drawing.leaves)
    assert {branch.value for branch in drawing.branches} == {""}


def test_numbers_are_written_as_people_read_them() -> None:
    values = (0.9999, 1234567.0, -2, 0.00012345, None, 1e20)
    written = ["0.9999", "1,234,567", "−2", "0.0001234", "–", "1e+20"]
    assert [charts.show(value) for value in values] == written
    assert [charts.signed(value) for value in (0.5, -0.25, 0.001, -0.001)] == [
        "+0.50",
        "−0.25",
        "0.00",
        "0.00",
    ]
    assert charts.ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert charts.smooth([2.0] * 9) == [2.0] * 9
    assert charts.smooth([0.0, 3.0, 0.0]) == [1.5, 1.0, 1.5]


def test_a_chart_spans_its_box() -> None:
    curve = charts.Curve("a", "a", ((1, -1.0), (2, 3.0), (4, 1.0)))
    chart = charts.chart(curve)
    points = [tuple(map(float, point.split())) for point in chart.line[1:].split("L")]
    assert [x for x, _ in points] == [0, 33.33, 100]
    assert points[1][1] < points[2][1] < points[0][1]
    assert all(0 < y < 100 for _, y in points)
    assert charts.chart(curve, iterations=7).line.split("L")[-1].startswith("50.00 ")
    assert charts.Curve("a", "a", ((1, 2.0), (2, 2.0))).constant


def test_a_band_lies_around_its_curve() -> None:
    chart = charts.chart(charts.Curve("a", "a", ((1, 1.0), (2, 2.0)), (0.5, 0.25)))
    points = [point.split() for point in chart.band[1:-1].split("L")]
    assert [x for x, _ in points] == ["0.00", "100.00", "100.00", "0.00"]
    middle = [float(point.split()[1]) for point in chart.line[1:].split("L")]
    heights = [float(y) for _, y in points]
    assert heights[0] + heights[3] == pytest.approx(2 * middle[0], abs=0.02)
    assert heights[1] + heights[2] == pytest.approx(2 * middle[1], abs=0.02)
    assert heights[0] < middle[0] < heights[3]
