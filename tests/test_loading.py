"""Configurations are put together in layers, and survive being written and read back."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from treerl.config import resolve as loading, yamlfile
from treerl.config.resolve import dump, parse_rewards, resolve
from treerl.config.schema import FIELDS, MAPPINGS, SECTIONS, Config
from treerl.errors import InputError
from treerl.recipes import RECIPES


def _lines(file: Path | None, flags: dict[str, object], allow_plugins: bool = False) -> list[str]:
    with pytest.raises(InputError) as caught:
        resolve(file, flags, [], allow_plugins)
    return str(caught.value).splitlines()


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
    "tree: {branch: 1, depth: all, roots: 24, window: fixed, start: 0}\n",
    "recipe: flowgrpo\nbackbone: {device: 'cuda:1', height: 64, width: 128}\n",
    "\ufeffenv:\r\n  steps: 20\r\n  guidance: 4.5\r\n",
    "kernel: {name: cps, options: {a: 1, b: 0.5, c: true, d: 'no'}}\ntree: {}\n",
    "output: '1e-4'\nbackbone: {model: 'no', revision: '08', adapter: '~'}\nrewards: {shapes: -2}\n",
    "tree: {branch: 2, depth: 4, window: shift}\nadvantage: {baseline: siblings, normalise: false}\n",
]


@pytest.mark.parametrize("text", _GOOD)
def test_accepts_and_writes_back(text: str, tmp_path: Path) -> None:
    config = resolve(_run_file(tmp_path, text), {}, [])
    for path, value in _flat(yaml.safe_load(text.removeprefix("\ufeff"))).items():
        found = _flat(config.model_dump())[path]
        assert found == (float(value) if isinstance(found, float) else value)
    assert resolve(_run_file(tmp_path, dump(config)), {}, []) == config
    assert yaml.safe_load(dump(config)) == config.model_dump()


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_is_accepted(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_preset", lambda layers: [])
    config = resolve(None, {"recipe": recipe}, [])
    assert {path: _flat(config.model_dump())[path] for path in RECIPES[recipe].settings} == RECIPES[
        recipe
    ].settings
    assert resolve(_run_file(tmp_path, dump(config)), {}, []) == config


def test_plugins_need_permission() -> None:
    flags: dict[str, object] = {"rewards": {"./mine.py:Mine": 2.0}, "kernel.name": "mine:Kernel"}
    lines = _lines(None, flags)
    assert len(lines) == 2 and all("add --allow-plugins" in line for line in lines)
    config = resolve(None, flags, [], allow_plugins=True)
    assert config.kernel.name == "mine:Kernel" and config.rewards == {"./mine.py:Mine": 2.0}


def test_later_layers_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"seed": 1, "train.rows": 1, "train.rank": 1, "train.alpha": 1, "train.threads": 1}
    monkeypatch.setattr(
        loading, "RECIPES", {**RECIPES, "treegrpo": SimpleNamespace(settings=values)}
    )
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    (tmp_path / "config" / "presets").mkdir(parents=True)
    preset = tmp_path / "config" / "presets" / "sd35-tiny.yaml"
    preset.write_text("train: {rows: 2, rank: 2, alpha: 2, threads: 2}\n")
    file = _run_file(tmp_path, "train: {rank: 3, alpha: 3, threads: 3}\n")
    config = resolve(
        file,
        {"train.alpha": 4, "train.threads": 4, "output": None},
        ["train.threads=4", "train.threads=5"],
    )
    assert (config.seed, config.train.rows, config.train.rank, config.train.alpha) == (1, 2, 3, 4.0)
    assert config.train.threads == 5 and config.output is None
    assert (
        resolve(None, {"backbone.model": "other"}, []).train.rows == 1
    )  # the preset was the tiny model's
    preset.write_text("backbone:\n  name: x\n")
    assert _lines(None, {})[0].startswith("preset sd35-tiny.yaml:2: backbone.name: expected no")
    preset.write_text("train:\n  rows: x\n")
    assert _lines(None, {})[0].startswith("preset sd35-tiny.yaml:2: train.rows: expected an")


def test_mappings_are_replaced_and_keys_are_added(tmp_path: Path) -> None:
    file = _run_file(tmp_path, "kernel: {options: {a: 1, b: 2}}\n")
    assert resolve(file, {}, ["kernel.options.c.d=3"]).kernel.options == {"a": 1, "b": 2, "c.d": 3}
    assert resolve(file, {"kernel.options": {"b": 5}}, []).kernel.options == {"b": 5}
    assert resolve(None, {}, ["rewards.shapes=2"]).rewards == {"shapes": 2.0}


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
        assert (
            value is None
            or path in SECTIONS
            or value in (kept, str(kept))
            or kept == float(str(value))
        )
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
    assert yamlfile.parse(dump(config), "x").plain() == config.model_dump()


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in nested.items():
        path = f"{prefix}{key}"
        found |= (
            _flat(value, f"{path}.")
            if isinstance(value, dict) and path not in MAPPINGS
            else {path: value}
        )
    return found
