"""Configurations are put together in layers, and survive being written and read back."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from treerl.config import yaml as reader
from treerl.config.paths import FIELDS, PLUGINS, SECTIONS
from treerl.config.resolve import dump, parse_rewards, resolve
from treerl.config.schema import Config
from treerl.engine.kernel import CPS
from treerl.errors import InputError


def _run_file(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "texts", [["a=0"], ["a="], ["=1"], [""], ["a", "a"], ["a=x"], ["a=nan"], ["a=inf"], ["a=1e999"]]
)
def test_refuses_bad_rewards(texts: list[str]) -> None:
    with pytest.raises(InputError, match=r"^--reward: rewards") as caught:
        parse_rewards(texts)
    assert "\n" not in str(caught.value)


def test_reads_rewards() -> None:
    assert parse_rewards(["hps=0.8", "clip", "./m.py:A=-2e-1"]) == {
        "hps": 0.8,
        "clip": 1.0,
        "./m.py:A": -0.2,
    }
    assert parse_rewards([]) == {}


_GOOD = [
    "seed: 9223372036854775807\n",
    "train:\n  learning_rate: 1e-4\n  weight_decay: '1e-4'\n  max_grad_norm: 1\n",
    "recipe: ddpo\ntree: {branching: {name: fixed, depth: all, start: 0}, trees_per_prompt: 24}\n",
    "recipe: flowgrpo\nbackbone: {device: 'cuda:1', height: 64, width: 128}\n",
    "\ufeffenv:\r\n  steps: 20\r\n  guidance: 4.5\r\n",
    "kernel: {name: cps, noise_level: '8e-1'}\ntree: {}\n",
    "output: '1e-4'\nbackbone: {model: 'no', revision: '08', adapter: '~'}\n"
    "rewards: {shapes: -2}\n",
    "tree: {branching: shift}\nadvantage: {baseline: siblings, normalise: false}\n",
    "rewards: {jpeg: {weight: 2, executor: worker, timeout: 1}, clip: {raw: true}}\n"
    "watch: [shapes]\n",
]


@pytest.mark.parametrize("text", _GOOD)
def test_accepts_and_writes_back(text: str, tmp_path: Path) -> None:
    config = resolve(_run_file(tmp_path, text), {}, [])
    kept = _flat(config.model_dump())
    for path, value in _flat(yaml.safe_load(text.removeprefix("\ufeff"))).items():
        if path in PLUGINS or path == "watch":  # a shorthand
            continue
        path = f"{path}.weight" if path == "rewards.shapes" else path
        assert kept[path] == (float(value) if isinstance(kept[path], float) else value)
    assert resolve(_run_file(tmp_path, dump(config)), {}, []) == config
    assert yaml.safe_load(dump(config)) == config.model_dump()


def test_a_shorthand_is_what_it_stands_for(tmp_path: Path) -> None:
    short = "kernel: cps\ntree: {branching: shift}\nrewards: {shapes: 2}\nwatch: [jpeg]\n"
    long = (
        "kernel: {name: cps}\ntree: {branching: {name: shift}}\n"
        "rewards: {shapes: {weight: 2}}\nwatch: {jpeg: {}}\n"
    )
    config = resolve(_run_file(tmp_path, short), {}, [])
    assert config == resolve(_run_file(tmp_path, long), {}, [])
    assert config.kernel.build() == CPS()
    sets = ["kernel=cps", "tree.branching=shift", "rewards.shapes=2", "watch=[jpeg]"]
    assert config == resolve(None, {}, sets)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_JUNK = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(path=st.sampled_from([*FIELDS, *SECTIONS]), value=_JUNK)
def test_mutated_settings_are_refused_by_path_or_kept(path: str, value: object) -> None:
    try:
        config = resolve(None, {path: value}, [])
    except InputError as error:
        assert all(line.startswith("--") and path in line for line in str(error).split("\n"))
    else:
        kept = _flat(config.model_dump()).get(path)
        inside = path in SECTIONS or path in ("rewards", "watch")
        assert value is None or inside or value in (kept, str(kept)) or kept == float(str(value))
        _parse_back(config)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_mutated_files_are_refused_or_written_back(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = dump(Config())
    start = data.draw(st.integers(0, len(text) - 1))
    junk = data.draw(st.text(alphabet="abz01-.:,[]{}'\"\\#&*!|>%@ \n\t\x00é~", max_size=6))
    file = tmp_path_factory.getbasetemp() / "mutated.yaml"
    file.write_text(text[:start] + junk + text[start + data.draw(st.integers(0, 8)) :], "utf-8")
    try:
        config = resolve(file, {}, [])
    except InputError as error:
        assert all(line.startswith((str(file), "default")) for line in str(error).split("\n"))
    else:
        _parse_back(config)


def _parse_back(config: Config) -> None:
    assert reader.parse(dump(config), "x").plain() == config.model_dump()


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        path = f"{prefix}{key}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def test_the_tiny_model_has_its_own_preset_whatever_is_named_first() -> None:
    model = {"backbone.model": "tiny", "backbone.name": "flux"}
    name = {"backbone.name": "flux", "backbone.model": "tiny"}
    first = resolve(None, model, [])
    assert first == resolve(None, name, []) and first.backbone.params["height"] == 32
