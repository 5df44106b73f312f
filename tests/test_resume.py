"""A run that is ended anywhere and taken up again ends as if nothing had happened."""

import json
from pathlib import Path

import pytest
from ended_runs import KINDS, REWARDS, figures, litter, prepare, run
from filelock import FileLock

from treerl.errors import InputError, Stopped, StorageError
from treerl.run import checkpoints
from treerl.run.evaluate import Evaluation
from treerl.run.record import Recorder
from treerl.run.session import Session


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(kind: str) -> None:
    sets = KINDS[kind]
    run(Path("whole"), *sets)
    run(Path("parts"), *sets, "train.iterations=1")
    run(Path("parts"), "train.iterations=3", resume="parts")
    printed = run(Path("parts"), *sets, resume="auto")
    assert "taken up again after iteration 3" in printed
    whole = figures(Path("whole"))
    parts = figures(Path("parts"))
    assert parts.pop("files") == whole.pop("files")
    assert parts == whole
    assert litter(Path("parts")) == []


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew_in_its_folder() -> None:
    run(Path("whole"), "train.iterations=1")
    run(Path("parts"), "train.iterations=1")
    for path in checkpoints.everyone(Path("parts/checkpoints")):
        for file in sorted(path.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        path.rmdir()
    manifest = json.loads(Path("parts/manifest.json").read_text())
    Path("parts/manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    run(Path("parts"), resume="parts")
    assert figures(Path("parts")) == figures(Path("whole"))


def test_a_damaged_checkpoint_is_skipped_and_named() -> None:
    run(Path("whole"))
    run(Path("parts"), "train.iterations=3")
    newest = checkpoints.newest(Path("parts/checkpoints"))
    tensors = newest / "training" / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    printed = run(Path("parts"), resume="auto")
    assert "skipped: parts/checkpoints/iteration-000003/training/tensors.safetensors" in printed
    assert "taken up again after iteration 2" in printed
    assert figures(Path("parts")) == figures(Path("whole"))


def test_a_run_that_is_done_is_left_as_it_is() -> None:
    run(Path("run"), "train.iterations=1")
    before = figures(Path("run"))
    assert "is done" in run(Path("run"), resume="run")
    assert figures(Path("run")) == before


def test_what_a_run_began_with_stays() -> None:
    run(Path("run"), "train.iterations=1")
    with pytest.raises(InputError, match=r"^--resume: env\.steps: expected 4, .* got 5$"):
        run(Path("run"), "env.steps=5", resume="run")
    with pytest.raises(InputError, match=r"Dark.weight: expected 1.0"):
        run(Path("run"), "rewards={./dark.py:Dark: 2}", resume="run")
    printed = run(Path("run"), "train.learning_rate=0.001", "train.iterations=2", resume="run")
    assert "changed: train.learning_rate: 0.0001 -> 0.001" in printed
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert manifest["resumed"][0]["changed"] == {"train.learning_rate": "0.0001 -> 0.001"}


def test_other_prompts_and_other_code_are_refused() -> None:
    run(Path("run"), "train.iterations=1")
    Path("prompts.txt").write_text("a cat\na dog\na cow\n")
    with pytest.raises(InputError, match="expected the prompts that the run began with"):
        run(Path("run"), "train.iterations=2", resume="run")
    Path("dark.py").write_text(REWARDS + "\n")
    with pytest.raises(InputError, match="another file than the run began with"):
        run(Path("run"), "train.iterations=2", resume="run")


def test_the_checkpoint_of_another_run_is_refused() -> None:
    run(Path("one"), "train.iterations=1")
    run(Path("two"), "train.iterations=2")
    Path("two/checkpoints/iteration-000002").rename("one/checkpoints/iteration-000002")
    with pytest.raises(StorageError, match="of run"):
        run(Path("one"), "train.iterations=3", resume="one")


def test_auto_begins_where_there_is_nothing_and_where_a_start_was_killed() -> None:
    for name in ("samples", "trees", "checkpoints"):
        Path("killed", name).mkdir(parents=True)
    Path("killed/plugins").mkdir()
    for name in (".lock", "config.yaml", ".draft-manifest.json.17"):
        Path("killed", name).touch()
    for name in ("killed", "new"):
        run(Path(name), "train.iterations=0", resume="auto")
        assert json.loads(Path(name, "manifest.json").read_text())["status"] == "done"
    Path("other").mkdir()
    Path("other/notes").touch()
    with pytest.raises(InputError, match="is not empty"):
        run(Path("other"), resume="auto")


def test_a_run_in_use_is_not_taken_up_twice() -> None:
    run(Path("run"), "train.iterations=1")
    with FileLock("run/.lock"), pytest.raises(InputError, match="in use by process"):
        run(Path("run"), resume="run")


def test_the_last_checkpoints_and_the_best_are_kept() -> None:
    sets = ("train.iterations=5", "evaluate.every=1", "train.keep_last=1", "train.keep_best=true")
    run(Path("run"), *sets, "train.learning_rate=0.1", "train.trainable=full")
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    scores = [row["heldout"]["reward"] for row in rows]
    best = 1 + scores.index(max(scores))
    kept = [checkpoints.number(path) for path in checkpoints.everyone(Path("run/checkpoints"))]
    assert kept == sorted({best, 5})


def test_an_evaluation_that_was_cut_short_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Session.evaluate
    calls = []

    def evaluate(self: Session) -> Evaluation:
        calls.append(self)
        if len(calls) == 2:  # that of iteration 2
            raise Stopped(15)
        return real(self)

    run(Path("whole"))
    monkeypatch.setattr(Session, "evaluate", evaluate)
    with pytest.raises(Stopped):
        run(Path("parts"))
    assert checkpoints.newest(Path("parts/checkpoints")).name == "iteration-000002"
    run(Path("parts"), resume="parts")
    assert figures(Path("parts")) == figures(Path("whole"))


def test_what_no_listener_was_told_of_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Recorder, *told: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(Recorder, "stepped", full)
    with pytest.raises(StorageError):
        run(Path("parts"))
    assert checkpoints.everyone(Path("parts/checkpoints")) == []
