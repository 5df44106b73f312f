"""Runs as a user starts them: their folder, interrupts, faults, and what loads back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import treerl
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.settings import PipelineSettings
from treerl.config.algorithm import algorithm_of
from treerl.config.resolve import resolve
from treerl.run.checkpoints import newest
from treerl.run.plan import plan_of


def flags(*sets: str) -> list[str]:
    """Settings as the command line takes them."""
    return [word for setting in sets for word in ("--set", setting)]


SMALL = flags(
    "train.prompts_per_iteration=2",
    "train.optimizer_steps=2",
    "evaluate.max_prompts=4",
    "tree.branching.depth=2",
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "treerl", *words]


def treerl_run(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*words), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def manifest(run: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return written


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    treerl_run(folder, "run", "--output", "run", *SMALL, "--set", "train.iterations=2")
    return folder / "run"


def test_a_run_leaves_the_whole_folder(finished: Path) -> None:
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
        "report.html",
        "samples/samples.json",
        "trees/first.json",
        "trees/last.json",
        "checkpoints/iteration-000002/transformer/diffusion_pytorch_model.safetensors",
    } <= names
    assert manifest(finished)["status"] == "done"
    assert "data:image/png;base64," in (finished / "report.html").read_text()


def test_what_was_spent_is_what_the_plan_draws(finished: Path) -> None:
    config = resolve(finished / "config.yaml", {"output": str(finished) + "-again"}, [])
    spent = manifest(finished)["spent"]
    drawn = plan_of(config, algorithm_of(config)).drawn(2).plain()
    assert {name: spent[name] for name in drawn} == drawn


def test_the_ratio_of_the_first_update_is_exactly_one(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["ratio_deviation"] for row in rows] == [0.0, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["full", "lora"])
def test_what_was_trained_loads_back_and_draws_the_same(tmp_path: Path, weights: str) -> None:
    words = [*SMALL, "--set", f"train.trainable={weights}"]
    treerl_run(tmp_path, "run", "--output", "first", *words, "--set", "train.iterations=1")
    saved = newest(tmp_path / "first" / "checkpoints")
    again = ["--set", f"backbone.adapter={saved}", "--set", "train.iterations=0"]
    treerl_run(tmp_path, "run", "--output", "again", *words, *again)
    first = manifest(tmp_path / "first")["evaluation"]
    second = manifest(tmp_path / "again")["evaluation"]
    assert second["before"] == first["after"] != first["before"]


@pytest.mark.slow
def test_the_lora_loads_through_diffusers_own_loader(tmp_path: Path) -> None:
    from diffusers import StableDiffusion3Pipeline

    sets = [
        "train.trainable=lora",
        "train.learning_rate=0.01",
        "train.iterations=1",
        "train.lora_alpha=64",
    ]
    treerl_run(tmp_path, "run", "--output", "run", *SMALL, *flags(*sets))
    saved = newest(tmp_path / "run" / "checkpoints")
    backbone: PipelineBackbone = treerl.load("backbones", "sd35").load(
        PipelineSettings(max_sequence_length=1), torch.device("cpu")
    )
    pipeline = backbone.pipeline
    assert isinstance(pipeline, StableDiffusion3Pipeline)

    def draw() -> torch.Tensor:
        noise = torch.Generator().manual_seed(0)
        drawn = pipeline(
            ["a red circle on the left"],
            num_inference_steps=4,
            guidance_scale=1.0,
            max_sequence_length=1,
            generator=noise,
            output_type="pt",
        )
        images: torch.Tensor = drawn.images
        return images

    base = draw()
    pipeline.load_lora_weights(saved)
    tuned = draw()
    assert not torch.equal(base, tuned)
    other: PipelineBackbone = treerl.load("backbones", "sd35").load(
        PipelineSettings(max_sequence_length=1), torch.device("cpu")
    )
    other.restore(saved)
    pipeline = other.pipeline
    assert torch.equal(draw(), tuned)


@pytest.mark.slow
def test_an_existing_folder_is_refused_and_left_alone(finished: Path) -> None:
    before = sorted(path.name for path in finished.iterdir())
    done = treerl_run(finished.parent, "run", "--output", str(finished), code=2)
    assert "exists and is not empty" in done.stderr
    assert sorted(path.name for path in finished.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_report_and_adapter(
    tmp_path: Path, number: int, code: int
) -> None:
    words = command("run", "--output", "run", *SMALL, "--set", "train.iterations=100000")
    process = subprocess.Popen(
        words, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    for _ in range(1200):
        if metrics.is_file() and process.poll() is None:
            break
        time.sleep(0.1)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert b"Traceback" not in stderr
    assert manifest(tmp_path / "run")["status"] == "interrupted"
    assert (tmp_path / "run" / "report.html").is_file()
    assert (newest(tmp_path / "run" / "checkpoints") / "transformer" / "config.json").is_file()


@pytest.mark.slow
def test_a_failing_reward_stops_the_run_by_name_with_code_6(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom treerl.reward.contract import Reward\n\n\nclass Bad(Reward):\n"
        "    def __call__(self, samples):\n"
        "        return torch.full((len(samples),), float('nan'))\n"
    )
    words = ["--reward", "./mine.py:Bad", "--allow-plugins", "--output", "run"]
    done = treerl_run(tmp_path, "run", *words, *SMALL, code=6)
    assert "reward ./mine.py:Bad: no finite number (of float32) for sample 0" in done.stderr
    assert manifest(tmp_path / "run")["status"] == "failed"


def test_a_plug_in_file_needs_the_flag(tmp_path: Path) -> None:
    done = treerl_run(tmp_path, "run", "--reward", "./mine.py:Bad", code=2)
    assert "--allow-plugins" in done.stderr and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_zero_learning_rate_leaves_the_weights_as_they_are(tmp_path: Path) -> None:
    for name, iterations in (("moved", 3), ("unmoved", 0)):  # of two updates each
        sets = flags("train.learning_rate=0", f"train.iterations={iterations}")
        treerl_run(tmp_path, "run", "--output", name, *SMALL, *sets)
    moved = manifest(tmp_path / "moved")["evaluation"]
    unmoved = manifest(tmp_path / "unmoved")["evaluation"]
    assert moved["after"] == moved["before"] == unmoved["before"]
    lines = (tmp_path / "moved" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["clip_fraction"], row["ratio_deviation"]) for row in rows] == [(0.0, 0.0)] * 3
    place = "transformer/diffusion_pytorch_model.safetensors"
    shipped = load_file(Path(treerl.__file__).parent / "tiny" / "sd35" / place)
    kept = load_file(tmp_path / "moved" / "checkpoints" / "iteration-000003" / place)
    assert all(torch.equal(kept[name], tensor.to(kept[name])) for name, tensor in shipped.items())


@pytest.mark.slow
def test_one_prompt_file_of_ones_own_is_enough(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a red circle on the left\n\na blue square at the top\n")
    words = ["--prompts", "mine.txt", "--output", "run", *SMALL, *flags("train.iterations=1")]
    treerl_run(tmp_path, "run", *words)
    assert manifest(tmp_path / "run")["prompts"] == {"train": 1, "heldout": 1}
