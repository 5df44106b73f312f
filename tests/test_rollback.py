"""`train.guard=rollback`: back to where the run was right, and on in smaller steps."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ended_runs import figures, run
from test_resume import inside as inside

from treerl.errors import NumericsError
from treerl.run import checkpoints
from treerl.run.guard import Guard, Trouble


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Iterations at which the reward is said to have fallen, each once."""
    at: list[int] = []
    real = Guard.look

    def look(self: Guard, metrics: Mapping[str, Any], prompts: int) -> list[Trouble]:
        troubles = real(self, metrics, prompts)
        if at and len(self.rewards) == at[0]:
            at.pop(0)
            return [Trouble("the reward fell", serious=True, curable=True)]
        return troubles

    monkeypatch.setattr(Guard, "look", look)
    return at


def test_a_run_goes_back_and_on_at_half_the_learning_rate(trouble: list[int]) -> None:
    trouble.append(8)
    printed = run(Path("run"), "train.iterations=8", "train.guard=rollback")
    said = "ALARM iteration 3: back at this iteration with the learning rate 5e-05: iteration 8"
    assert said in printed
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(1, 9))
    state = checkpoints.read_state(checkpoints.newest(Path("run/checkpoints")))
    assert state.rollbacks == 1
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert manifest["status"] == "done" and manifest["spent"]["iterations"] == 8


def test_the_iterations_before_are_those_of_an_untroubled_run(trouble: list[int]) -> None:
    run(Path("well"), "train.iterations=3", "train.guard=rollback")
    trouble.append(8)
    run(Path("run"), "train.iterations=8", "train.guard=rollback")
    for row, other in zip(_rows("well"), _rows("run"), strict=False):
        assert row == other


def test_a_run_that_falls_again_and_again_is_ended(trouble: list[int]) -> None:
    trouble.extend([2, 2, 2, 2])
    with pytest.raises(NumericsError, match=r"the reward fell; rolled back 3 times already$"):
        run(Path("run"), "train.guard=rollback")
    alarms = json.loads(Path("run/manifest.json").read_text())["alarms"]
    back = [text for text in alarms if "back at this iteration" in text]
    rates = [text.partition("the learning rate ")[2].partition(":")[0] for text in back]
    assert rates == ["5e-05", "2.5e-05", "1.25e-05"]


def test_a_run_that_was_rolled_back_is_taken_up_as_it_was(trouble: list[int]) -> None:
    # one reward drowns the other, which is an alarm of the first iteration
    drowning = "rewards={./dark.py:Dark: 1, ./dark.py:Level: 0.0001}"
    sets = (drowning, "train.guard=rollback", "train.trainable=full")
    trouble.append(8)
    run(Path("whole"), *sets, "train.iterations=10")
    trouble.append(8)
    run(Path("parts"), *sets, "train.iterations=8")
    run(Path("parts"), *sets, "train.iterations=10", resume="auto")
    whole = figures(Path("whole"))
    first, _, last = whole["alarms"]
    assert "drowns the others" in first and "back at this iteration" in last
    assert figures(Path("parts")) == whole


def test_stop_ends_a_run_whose_reward_fell(trouble: list[int]) -> None:
    trouble.append(2)
    with pytest.raises(NumericsError, match=r"^train\.guard: iteration 2: the reward fell$"):
        run(Path("run"), "train.guard=stop")


def _rows(folder: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds")
    return rows
