"""A run that torchrun starts leaves one folder, and says once what is wrong for all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

_RUN = {
    "recipe": "treegrpo",
    "backbone.model": "miniature",
    "rewards": "{jpeg: 1.0}",
    "train.prompts_per_iteration": "3",
    "train.iterations": "2",
    "env.steps": "4",
    "tree.branching.depth": "1",
    "tree.branching.branching_factor": "2",
    "evaluate.max_prompts": "3",
}


# kills rank 1 once, in the second iteration
_FATAL = """
import os, pathlib, signal
import torch
import treerl

class Fatal(treerl.Reward):
    calls = 0

    def __call__(self, samples):
        Fatal.calls += 1
        mark = pathlib.Path("killed")
        if os.environ["RANK"] == "1" and Fatal.calls == 4 and os.environ["FATAL"] == "yes":
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return samples.images.flatten(1).mean(1)
"""


def launched(
    folder: Path, *words: str, restarts: int = 0, fatal: str = "no"
) -> subprocess.CompletedProcess[str]:
    launcher = f"torch.distributed.run --nproc-per-node 2 --max-restarts {restarts}"
    command = [sys.executable, "-m", *launcher.split(), "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0"]
    sets = [word for name, value in _RUN.items() for word in ("--set", f"{name}={value}")]
    run = ["-m", "treerl", "run", "--output", "run", *sets, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment["FATAL"] = fatal
    return subprocess.run(
        command + run, cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )


def test_a_launched_run_leaves_one_folder(tmp_path: Path) -> None:
    done = launched(tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["iteration"] for row in rows] == [1, 2]
    samples = json.loads((tmp_path / "run" / "samples" / "samples.json").read_text())["samples"]
    assert len(samples) == 3
    for sample in samples:
        for when in ("before", "after"):
            assert (tmp_path / "run" / "samples" / sample[when]["image"]).is_file()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "done" and manifest["spent"]["iterations"] == 2
    assert done.stdout.count("report:") == 1


def test_what_is_wrong_for_all_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("mine")
    done = launched(tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("treerl: output: run exists and is not empty") == 1
    assert "exitcode  : 2" in done.stderr


def test_a_run_whose_process_was_killed_is_started_again_and_ends_as_if_it_had_not_been(
    tmp_path: Path,
) -> None:
    weights = []
    for name in ("no", "yes"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "fatal.py").write_text(_FATAL)
        words = ["--allow-plugins", "--resume", "auto", "--set", "rewards={./fatal.py:Fatal: 1}"]
        words += ["--set", "train.save_every=1", "--set", "train.iterations=3"]
        done = launched(folder, *words, restarts=1, fatal=name)
        assert done.returncode == 0, done.stderr
        assert (folder / "killed").exists() == (name == "yes")
        rows = (folder / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["iteration"] for row in rows] == [1, 2, 3]
        tensors = folder / "run" / "checkpoints" / "iteration-000003" / "training"
        weights.append(load_file(tensors / "tensors.safetensors"))
    undisturbed, killed = weights
    assert undisturbed.keys() == killed.keys()
    assert all(torch.equal(undisturbed[name], killed[name]) for name in killed)
