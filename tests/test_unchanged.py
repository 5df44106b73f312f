"""What was right in 0.1.0 stays as it was: the same rewards, losses and evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest

import treerl
from treerl.run.evaluate import Evaluation

_WAS = json.loads((Path(__file__).parent / "data" / "version-0.1.0.json").read_text("utf-8"))
_SETTINGS = {
    "backbone.model": "tiny",
    "train.iterations": 5,
    "evaluate.max_prompts": 8,
    "evaluate.samples_per_prompt": 2,
}


def figures(evaluation: Evaluation) -> dict[str, Any]:
    summary = evaluation.summary()
    return {"reward": summary["reward"], "quality": summary["quality"]}


@pytest.mark.parametrize("name", ["sd35", "flux", "wan"])
def test_five_iterations_of_a_tiny_model_compute_what_version_0_1_0_did(name: str) -> None:
    """With a reward that did not change since, `jpeg`; relative 1e-6."""
    was = _WAS["jpeg"][name]
    settings = {**_SETTINGS, "backbone.name": name, "rewards": {"jpeg": 1.0}}
    session = treerl.assemble(settings=settings)
    before = figures(session.evaluate())
    rows = []
    for step in session.train():
        rows.append({key: step.metrics[key] for key in was["iterations"][0]})
    after = figures(session.evaluate())
    for row, expected in zip(rows, was["iterations"], strict=True):
        assert row == pytest.approx(expected, rel=1e-6, abs=1e-9)
    for evaluation, when in ((before, "before"), (after, "after")):
        expected = was["evaluation"][when]
        assert evaluation["reward"] == pytest.approx(expected["reward"], rel=1e-6)
        assert evaluation["quality"] == pytest.approx(expected["quality"], rel=1e-6)
