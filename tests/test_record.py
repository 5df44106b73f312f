"""What a run's folder says of a run that was ended, and of what it cost."""

import json
from pathlib import Path

import pytest
from ended_runs import KINDS, run
from test_keeper import manifest
from test_resume import inside as inside

from treerl.engine.step import Step
from treerl.engine.trainer import Trainer
from treerl.errors import RewardError, Stopped
from treerl.run import checkpoints


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (Stopped(15), "interrupted"),
        (RewardError("no"), "failed"),
    ],
    ids=["ctrl-c", "signal", "error"],
)
def test_a_run_that_was_ended_tells_how_and_shows_its_last_tree(
    error: BaseException, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    iterate = Trainer.iterate

    def ended(self: Trainer, *what: object) -> Step:
        if self.iteration == 3:
            raise error
        return iterate(self, *what)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "iterate", ended)
    with pytest.raises(type(error)):
        run(Path("run"), "train.iterations=6", "train.save_every=0")
    assert manifest("run")["status"] == status
    assert manifest("run")["spent"]["iterations"] == 3
    for name, iteration in (("first", 1), ("last", 3)):
        tree = json.loads(Path(f"run/trees/{name}.json").read_text())
        assert tree["iteration"] == iteration
    assert checkpoints.newest(Path("run/checkpoints")).name == "iteration-000003"


def test_what_is_spent_is_what_was_planned() -> None:
    """Two rewards, two epochs of one optimizer step, four iterations of one prompt."""
    run(Path("run"), *KINDS["two rewards"])
    spent = manifest("run")["spent"]
    planned = manifest("run")["plan"]
    assert spent["optimizer_steps"] == planned["optimizer_steps"] == 4 * 2
    assert spent["reward_calls"] == planned["reward_calls"] == 2 * spent["leaves"] == 4 * 2 * 2
    for name in ("edges", "leaves", "decodes"):
        assert spent[name] == planned[name]
