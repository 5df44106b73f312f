"""`treerl run --devices N`: what it leaves, how it names a process that fails, what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_FAULTS = Path(__file__).parents[1] / "benchmarks" / "rank_faults.py"
_RUN = {
    "recipe": "treegrpo",
    "backbone.model": "miniature",
    "rewards": "{jpeg: 1.0}",
    "train.prompts_per_iteration": "3",
    "env.steps": "4",
    "tree.branching.depth": "1",
    "tree.branching.branching_factor": "2",
    "evaluate.max_prompts": "3",
}


def begun(folder: Path, iterations: int, **variables: str) -> subprocess.Popen[str]:
    sets = [word for name, value in _RUN.items() for word in ("--set", f"{name}={value}")]
    sets += ["--set", f"train.iterations={iterations}"]
    command = [sys.executable, "-m", "treerl", "run", "--devices", "2", "--output", "run", *sets]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **variables}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_processes_leave_one_run(tmp_path: Path) -> None:
    run = begun(tmp_path, 2)
    out, err = run.communicate(timeout=200)
    assert run.returncode == 0, err
    assert out.count("report:") == 1
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["iteration"] for row in rows] == [1, 2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_run_of_all_processes(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run = begun(tmp_path, 100_000)
    rows = tmp_path / "run" / "metrics.jsonl"
    while not rows.exists() and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code, err
    done = len(rows.read_text().splitlines())
    assert (tmp_path / "run" / "checkpoints" / f"iteration-{done:06d}").is_dir()


def test_another_number_than_was_started_is_refused(tmp_path: Path) -> None:
    run = begun(tmp_path, 2, WORLD_SIZE="4", LOCAL_WORLD_SIZE="4")
    _, err = run.communicate(timeout=60)
    expected = "expected '4', as many processes as were started here, or none, got 2"
    assert (run.returncode, err) == (2, f"treerl: --devices: {expected}\n")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("kill", "rank 1: ended by SIGKILL in phase update"),
        ("stop", "rank 1: no sign of life for 10 s, in phase update"),
        ("raise", "rank 1: ArithmeticError: on purpose, in phase update"),
    ],
)
def test_a_process_that_fails_is_named_with_its_phase(fault: str, said: str) -> None:
    tried = [sys.executable, str(_FAULTS), fault, "update", "1"]
    done = subprocess.run(tried, capture_output=True, text=True, timeout=200)
    line = done.stdout.splitlines()[0]
    assert "code 5" in line and line.endswith(said), done.stdout + done.stderr
