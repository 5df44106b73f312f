"""`treerl plan --memory`, `--for` and `--measure`: what they print, and what they count."""

import io
import json
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from treerl.backbone.pipeline import PipelineBackbone
from treerl.cli import main
from treerl.config.resolve import resolve
from treerl.run.assemble import build
from treerl.run.calls import calls, evaluation_calls, evaluations
from treerl.run.measure import rehearsal_of
from treerl.run.size import parse_size

PARTS = {"denoiser", "trained weights", "optimizer", "vae", "conditions", "latents", "workspaces"}
PHASES = ["encode", "rollout", "decode", "update", "optimizer step"]
LORA = ("--set", "train.trainable=lora")


def treerl(*words: str, code: int = 0) -> str:
    """What the command line prints, or complains of."""
    out = io.StringIO()
    err = io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(["plan", *words])
    assert (ended.value.code or 0) == code, out.getvalue() + err.getvalue()
    return err.getvalue() if code else out.getvalue()


def memory(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(treerl("--json", *words))["memory"]
    return found


@pytest.mark.slow
def test_a_plan_tells_the_peak_where_it_is_asked_to() -> None:
    plain = memory(*LORA)
    asked = memory("--memory", "--for", "2GB", *LORA)
    assert {name: asked[name] for name in plain} == plain and set(asked) - set(plain) == {
        "peak",
        "fit",
    }
    peak = asked["peak"]
    assert set(peak) == {"bytes", "needed_bytes", "phase", "phases", "parts"}
    assert set(peak["parts"]) == PARTS and list(peak["phases"]) == PHASES
    assert peak["bytes"] == peak["phases"][peak["phase"]] < peak["needed_bytes"]
    fit = asked["fit"]
    assert fit["for_bytes"] == 2_000_000_000 >= fit["needed_bytes"]
    assert fit["rows"] > 24 and fit["advice"] == []
    sets = ("--set", f"train.micro_batch_size={fit['rows']}")
    assert memory("--memory", *LORA, *sets)["peak"]["needed_bytes"] == pytest.approx(
        fit["needed_bytes"], rel=0.01
    )


@pytest.mark.slow
def test_people_read_the_same_in_tables_and_sentences() -> None:
    text = treerl("--memory", "--for", "2GB", *LORA)
    assert "stays: optimizer" in text and "peak: update" in text and "a card needs about" in text
    assert "is the most that fits" in text and "one more does not, because of" in text
    text = treerl("--for", "1MiB", *LORA)
    assert "1.0 MiB: not even one row fits" in text and "peak:" not in text
    assert "  parallel.shard=true --devices 8: needs" in text and "does not fit yet" in text


def test_a_model_of_ones_own_has_no_peak_before_it_is_loaded() -> None:
    file = Path(__file__).parent / "plain_torch.py"
    words = ("--backbone", f"{file}:Points", "--reward", "jpeg", "--allow-plugins")
    found = memory("--memory", "--for", "24GB", *words)
    assert found["peak"] is None and found["fit"] is None
    assert "not known before the model is loaded" in treerl("--memory", *words)


@pytest.mark.parametrize("size", ["24", "GB", "0GB", "-1GB", "24 apples", "1e9GB", "", "inf GB"])
def test_a_wrong_size_is_refused_in_one_line(size: str) -> None:
    lines = treerl("--for", size, code=2).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("treerl: --for: expected a size such as 24GB or 80GiB, got ")


def test_sizes_are_read_as_they_are_written() -> None:
    assert parse_size("24GB") == 24_000_000_000
    assert parse_size("80GiB") == 80 * 2**30
    assert parse_size("1.5 tb") == 1_500_000_000_000
    assert parse_size(" 512mib ") == 2**29


@pytest.mark.slow
@pytest.mark.parametrize(
    "sets",
    [
        ("tree.branching=shift", "train.micro_batch_size=7"),
        ("recipe=nft", "train.micro_batch_size=5", "train.ppo_epochs=2"),
        ("tree.branching=shift", "tree.tail_stride=2", "train.selection=all"),
        (
            "recipe=g2rpo",
            "tree.branching={name: fixed, branching_factor: 5, depth: 1}",
            "train.micro_batch_size=4",
        ),
    ],
)
def test_the_calls_of_an_iteration_are_those_of_the_run(
    sets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ["train.iterations=2", "train.prompts_per_iteration=3", "evaluate.max_prompts=5"]
    config = resolve(None, {"rewards": {"jpeg": 1.0}}, [*usual, "scoring.executor=process", *sets])
    session = build(config)
    called: Counter[str] = Counter()

    def counting(name: str, method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(own: Any, x: Tensor, *rest: Any) -> Tensor:
            called["update" if torch.is_grad_enabled() else name] += 1
            return method(own, x, *rest)

        return counted

    monkeypatch.setattr(PipelineBackbone, "predict", counting("rollout", PipelineBackbone.predict))
    monkeypatch.setattr(PipelineBackbone, "decode", counting("decode", PipelineBackbone.decode))
    list(session.train())
    expected = calls(config, session.plan, len(session.tasks))
    compares = session.algorithm.objective.weight_set is not None
    assert called["rollout"] == 2 * expected["rollout"] + compares * 2 * expected["update"]
    assert called["update"] == 2 * expected["update"]
    assert called["decode"] == 2 * expected["decode"]
    called.clear()
    session.evaluate()
    once = evaluation_calls(config, 5)
    assert (called["rollout"], called["decode"]) == (once["rollout"], once["decode"])


def test_a_run_evaluates_before_after_and_where_it_is_asked_to() -> None:
    def times(every: int, iterations: int) -> int:
        sets = [f"evaluate.every={every}", f"train.iterations={iterations}"]
        return evaluations(resolve(None, {}, sets))

    assert [times(0, 60), times(20, 60), times(7, 60), times(100, 60)] == [2, 4, 10, 2]


def test_measuring_tells_every_phase_and_hours_that_are_their_sum() -> None:
    words = ("--set", "train.micro_batch_size=2", "--set", "train.prompts_per_iteration=1")
    found = json.loads(treerl("--json", "--measure", *words))["seconds"]
    names = {"encode", "rollout", "decode", "reward", "update", "optimizer step"}
    assert set(found["phases"]) == names and found["device"] == "cpu"
    total = sum(row["seconds"] * row["calls"] for row in found["phases"].values())
    assert found["iteration"] == pytest.approx(total)
    assert all(row["seconds"] > 0 for row in found["phases"].values())
    config = resolve(None, {}, [])
    whole = found["iteration"] * config.train.iterations + 2 * found["evaluation"]
    assert found["hours"] == pytest.approx(whole / 3600)
    assert "seconds a call" in treerl("--measure", *words)


def test_a_phase_is_timed_by_one_forward() -> None:
    config = resolve(None, {}, [])
    session = build(config)
    rehearsal = rehearsal_of(session)
    counted: list[int] = []
    real = session.backbone.predict

    def predict(x: Tensor, *others: Any) -> Tensor:
        counted.append(len(x))
        return real(x, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.backbone, "predict", predict)
        for work in (rehearsal.window(5), rehearsal.tails(5), rehearsal.update(5)):
            counted.clear()
            work()
            assert counted == [5]
    session.close()
