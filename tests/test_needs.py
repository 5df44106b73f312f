"""What a run refuses before it loads a model, a plan refuses in the same words."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import treerl
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.errors import InputError, TreerlError
from treerl.run.assemble import build
from treerl.run.plan_table import table

OWN = """
from dataclasses import dataclass
from pathlib import Path
from treerl import Reward

class Abstract(Reward):
    pass

class Good(Reward):
    def __call__(self, samples):
        return samples.images.mean((1, 2, 3))

@dataclass
class Raising(Good):
    def __post_init__(self):
        raise KeyError("no such key")

@dataclass
class Ruled(Good):
    count: int = 1
    def __post_init__(self):
        if self.count > 3:
            raise ValueError("count: expected at most 3")

class Exiting(Good):
    def __init__(self):
        raise SystemExit(0)

class Picky(Good):
    def validate_tasks(self, tasks):
        raise RuntimeError("I like none of them")

class Heavy(Good):
    def load(self):
        Path("loaded").touch()

class Unloadable(Good):
    def load(self):
        raise OSError("the weights are gone")

class Env:
    pass
"""

# settings, and what is said of them
REFUSED = {
    "abstract reward": ("rewards={'./own.py:Abstract': 1}", "Abstract"),
    "reward that raises": ("rewards={'./own.py:Raising': 1}", "no such key"),
    "reward with a rule": ("rewards={'./own.py:Ruled': {count: 4}}", "count: expected at most 3"),
    "the same in a worker": (
        "rewards={'./own.py:Ruled': {count: 4, executor: worker}}",
        "count: expected at most 3",
    ),
    "watched reward with a rule": ("watch={'./own.py:Ruled': {count: 4}}", "watch../own.py:Ruled"),
    "reward that exits": ("rewards={'./own.py:Exiting': 1}", "SystemExit"),
    "reward that takes no task": ("rewards={'./own.py:Picky': 1}", "I like none of them"),
    "the same in a worker, of tasks": (
        "rewards={'./own.py:Picky': {executor: worker}}",
        "I like none of them",
    ),
    "no url": ("rewards={judge: 1}", "rewards.judge.url: expected one"),
    "no url, watched": ("watch=[ocr]", "watch.ocr.url: expected one"),
    "no model": ("rewards={judge: {url: 'http://127.0.0.1:9/v1'}}", "rewards.judge.model"),
    "no words to be read": (
        "rewards={ocr: {url: 'http://127.0.0.1:9/v1', model: m}}",
        'has no words in "quotes"',
    ),
    "videos of a model of images": ("rewards={moving-shapes: 1}", "it scores videos"),
    "prompts of another set": ("data.builtin=scenes", "shapes"),
    "prompts of another modality": ("data.builtin=clips", "shapes"),
    "weights that are not there": ("rewards={clip: {model: ./none}}", "no such file or folder"),
    "unknown version": ("rewards={hps: {version: '3'}}", "version: expected 2.1 or 2.0, got 3"),
    "no address": ("scoring.executor='http://'", "expected an address such as"),
    "bad port": ("scoring.executor='http://localhost:99999'", "expected an address such as"),
    "password": ("scoring.executor='http://me:secret@localhost:80'", "no password"),
    "fields of a server's": (
        "rewards={jpeg: {executor: 'http://127.0.0.1:9', quality: 3}}",
        "rewards.jpeg",
    ),
    "unknown field": ("rewards.jpeg.nope=1", "rewards.jpeg.nope: unknown key"),
    "unknown field, watched": ("watch.jpeg.nope=1", "watch.jpeg.nope: unknown key"),
    "unknown executor": ("rewards.jpeg.executor=nowhere", "expected process, worker or an"),
    "unknown prompts": ("data.builtin=nothing", "data.builtin: unknown built-in prompts"),
    "no prompt file": ("data.train=none.txt", "none.txt: no such file"),
    "environment of another kind": ("env.name=./own.py:Env", "expected a subclass of"),
    "too much noise": ("kernel.noise_level=10", "kernel"),
    "no adapter": ("backbone.adapter=./none", "backbone.adapter: no such folder: none"),
    "adapter that is none": ("backbone.adapter=.", "has neither pytorch_lora_weights.safetensors"),
    "damaged adapter": ("backbone.adapter=damaged", "backbone.adapter: damaged"),
    "no teacher": ("train.teacher=./none", "train.teacher"),
    "no tiny autoencoder": ("backbone.tiny_vae=./none", "backbone.tiny_vae: './none'"),
    "no model folder": ("backbone.model=./none", "backbone.model: './none'"),
    "model of another family": ("backbone.model=other", "it is a FluxPipeline"),
    "model without components": ("backbone.model=hollow", "backbone.model: 'hollow'"),
    "size beyond the model": ("backbone={height: 4096, width: 4096}", "backbone.height"),
    "two faults": ("rewards={judge: 1, moving-shapes: 1}", "it scores videos"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings' paths lead to."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "pytorch_lora_weights.safetensors").write_bytes(b"no tensors")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (tmp_path / "hollow").mkdir()
    index = {"_class_name": "StableDiffusion3Pipeline", "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "hollow" / "model_index.json").write_text(json.dumps(index))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _config(*sets: str) -> Config:
    return resolve(None, {}, sets, allow_plugins=True)


def _refusal(work: Callable[[Config], object], setting: str) -> str:
    with pytest.raises(TreerlError) as caught:
        work(_config(setting))
    return f"{caught.value.code}: {caught.value}"


_CASES = [
    pytest.param(*case, id=name, marks=pytest.mark.slow if "worker" in name else [])
    for name, case in REFUSED.items()
]


@pytest.mark.parametrize(("setting", "says"), _CASES)
def test_a_plan_refuses_what_a_run_refuses(folder: Path, setting: str, says: str) -> None:
    of_run = _refusal(build, setting)
    assert says in of_run
    assert _refusal(table, setting) == of_run


def test_all_that_is_missing_is_said_at_once(folder: Path) -> None:
    settings = ["rewards={judge: 1, moving-shapes: 1}", "backbone.adapter=./none", "watch=[ocr]"]
    with pytest.raises(InputError) as caught:
        table(_config(*settings))
    lines = str(caught.value).split("\n")
    starts = ["backbone.adapter", "rewards.judge.url", "rewards.moving-shapes", "watch.ocr.url"]
    assert [line.partition(":")[0] for line in lines] == starts


def test_a_plan_reads_no_weights_and_asks_no_server(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        jpeg = "jpeg: {executor: '" + address + "', timeout: 1}"
        table(_config("rewards={'./own.py:Heavy': 1, " + jpeg + "}"))
        with pytest.raises(BlockingIOError):
            server.accept()
    assert not (folder / "loaded").exists()
    build(_config("rewards={'./own.py:Heavy': 1}")).close()
    assert (folder / "loaded").exists()


def test_weights_are_read_when_nothing_else_is_wrong(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^rewards.judge.url: expected one"):
        build(_config("rewards={'./own.py:Heavy': 1, judge: 1}"))
    assert not (folder / "loaded").exists()


def test_rewards_that_somebody_made_are_loaded_once(folder: Path) -> None:
    loads: list[str] = []

    class Counted(treerl.Reward):
        def load(self) -> None:
            loads.append("again")

        def __call__(self, samples: treerl.Samples) -> torch.Tensor:
            assert loads
            return samples.images.mean((1, 2, 3))

    rewards = treerl.Rewards({"counted": Counted()})
    samples = treerl.Samples.of(torch.rand(2, 3, 8, 8), ["a", "b"])
    rewards(samples)
    rewards.measures(samples)
    rewards(samples)
    assert loads == ["again"]


@pytest.mark.parametrize("executor", ["process", pytest.param("worker", marks=pytest.mark.slow)])
def test_a_reward_that_cannot_be_loaded_is_one_line(folder: Path, executor: str) -> None:
    setting = "rewards={'./own.py:Unloadable': {executor: " + executor + "}}"
    table(_config(setting))
    says = _refusal(build, setting)
    assert says == "2: rewards../own.py:Unloadable: cannot be loaded: OSError: the weights are gone"
