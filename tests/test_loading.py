"""Configurations are put together in layers, and survive being written and read back."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from treerl.config import resolve as loading, yaml as reader
from treerl.config.algorithm import PATHS, algorithm_of, recipe_settings
from treerl.config.paths import FIELDS, PLUGINS, SECTIONS
from treerl.config.resolve import dump, parse_rewards, resolve
from treerl.config.schema import Config
from treerl.engine.algorithm import Algorithm
from treerl.engine.kernel import CPS
from treerl.engine.recipes import recipes
from treerl.errors import InputError

_KERNEL = """
from dataclasses import dataclass
import treerl

@dataclass(frozen=True)
class Mine(treerl.Kernel):
    strength: int = 1

    def coefficients(self, schedule):
        return treerl.ODE().coefficients(schedule)
"""

_REWARD = """
from dataclasses import dataclass
import treerl

@dataclass
class Blue(treerl.Reward):
    strength: int = 1

    def __call__(self, samples):
        raise NotImplementedError
"""


@dataclass(frozen=True)
class Own(CPS):
    """A kernel that no entry point announces."""

    extra: int = 2


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
    "tree: {branching: {name: fixed, depth: all, start: 0}, trees_per_prompt: 24}\n",
    "recipe: flowgrpo\nbackbone: {device: 'cuda:1', height: 64, width: 128}\n",
    "\ufeffenv:\r\n  steps: 20\r\n  guidance: 4.5\r\n",
    "kernel: {name: cps, noise_level: '8e-1'}\ntree: {}\n",
    "output: '1e-4'\nbackbone: {model: 'no', revision: '08', adapter: '~'}\nrewards: {shapes: -2}\n",
    "tree: {branching: shift}\nadvantage: {baseline: siblings, normalise: false}\n",
    "rewards: {jpeg: {weight: 2, executor: worker, timeout: 1}, clip: {raw: true}}\nwatch: [shapes]\n",
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


@pytest.mark.parametrize("recipe", list(recipes))
def test_a_recipe_survives_its_settings(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_preset", lambda layers: [])
    config = resolve(None, {"recipe": recipe}, [])
    assert algorithm_of(config) == recipes[recipe]
    assert algorithm_of(resolve(_run_file(tmp_path, dump(config)), {}, [])) == recipes[recipe]


def test_every_field_of_an_algorithm_is_a_setting() -> None:
    assert {*PATHS, "name", "source"} == {field.name for field in fields(Algorithm)}


def test_an_algorithm_of_a_class_of_ones_own_has_settings_too() -> None:
    algorithm = replace(recipes["treegrpo"], kernel=Own(noise_level=0.5))
    settings = recipe_settings(algorithm)
    assert settings["kernel"] == {"name": f"{__name__}:Own", "noise_level": 0.5, "extra": 2}


def test_plugins_need_permission(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(_KERNEL)
    kernel = f"{tmp_path}/mine.py:Mine"
    flags: dict[str, object] = {"rewards": {"./r.py:Blue": 2.0}, "kernel.name": kernel}
    lines = _lines(None, flags)
    assert len(lines) == 2 and all("add --allow-plugins" in line for line in lines)
    config = resolve(None, flags, ["kernel.strength=3"], allow_plugins=True)
    assert config.kernel.params == {"strength": 3} and list(config.rewards) == ["./r.py:Blue"]


def test_later_layers_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = replace(recipes["treegrpo"], optimizer_steps=1, ppo_epochs=1, trees_per_prompt=9)
    monkeypatch.setattr("treerl.recipes.recipes", {**recipes, "treegrpo": paper})
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    (tmp_path / "config" / "presets").mkdir(parents=True)
    preset = tmp_path / "config" / "presets" / "sd35-tiny.yaml"
    preset.write_text("train: {optimizer_steps: 2, ppo_epochs: 2, threads: 2, lora_rank: 2}\n")
    file = _run_file(tmp_path, "train: {ppo_epochs: 3, threads: 3, lora_rank: 3}\n")
    config = resolve(
        file,
        {"train.threads": 4, "train.lora_rank": 4, "output": None},
        ["train.lora_rank=4", "train.lora_rank=5"],
    )
    train = config.train
    assert (config.tree.trees_per_prompt, train.optimizer_steps, train.ppo_epochs) == (9, 2, 3)
    assert (train.threads, train.lora_rank, config.output) == (4, 5, None)
    other = resolve(None, {"backbone.model": "other"}, [])
    assert other.train.optimizer_steps == 1  # the preset was the tiny model's
    preset.write_text("train:\n  threads: x\n")
    assert _lines(None, {})[0].startswith("preset sd35-tiny.yaml:2: train.threads: expected an")


def test_presets_choose_neither_recipe_nor_backbone() -> None:
    presets = list((Path(loading.__file__).parent / "presets").glob("*.yaml"))
    assert len(presets) >= 10
    for preset in presets:
        settings = reader.read(preset).plain()
        assert "recipe" not in settings and "name" not in settings.get("backbone", {})


@pytest.mark.parametrize("preset", ["sd35", "sd35-tiny", "wan-tiny", "wan", "flux", "sdxl"])
def test_presets_are_settings(preset: str) -> None:
    name = preset.removesuffix("-tiny")
    sets = ["backbone.model=tiny"] if preset != name else []
    config = resolve(None, {"backbone.name": name}, sets)
    path = Path(loading.__file__).parent / "presets" / f"{preset}.yaml"
    for setting, value in _flat(reader.read(path).plain()).items():
        assert _flat(config.model_dump())[setting.replace("shapes", "shapes.weight")] == value


def test_a_layer_that_changes_the_plug_in_drops_the_parameters_below(tmp_path: Path) -> None:
    file = _run_file(tmp_path, "tree: {branching: {name: fixed, depth: 2, start: 1}}\n")
    more = ["tree.branching.depth=3", "tree.trees_per_prompt=2"]
    kept = resolve(file, {}, more).tree.branching.params
    assert kept == {"branching_factor": 1, "depth": 3, "start": 1}
    changed = resolve(file, {}, ["tree.branching.name=shift"]).tree.branching
    assert (changed.name, changed.params["depth"]) == ("shift", 4)
    same = resolve(file, {}, ["tree.branching=fixed", "tree.trees_per_prompt=2"]).tree.branching
    assert same.params["start"] == 1
    models = _run_file(tmp_path, "backbone: {name: flux, model: /mine}\n")
    assert resolve(models, {"backbone.name": "sd35"}, []).backbone.params["model"] != "/mine"


def test_rewards_are_replaced_and_names_are_added(tmp_path: Path) -> None:
    def weights(file: Path | None, flags: dict[str, object], *sets: str) -> dict[str, float]:
        rewards = resolve(file, flags, sets).rewards
        return {name: reward.weight for name, reward in rewards.items()}

    file = _run_file(tmp_path, "rewards: {jpeg: 2}\n")
    assert weights(file, {}) == {"jpeg": 2.0}
    assert weights(file, {}, "rewards.clip=3") == {"jpeg": 2.0, "clip": 3.0}
    assert weights(file, {"rewards": {"shapes": 5}}) == {"shapes": 5.0}
    assert weights(file, {}, "rewards={clip: 1}") == {"clip": 1.0}
    assert weights(None, {}, "rewards.jpeg.weight=-1") == {"shapes": 1.0, "jpeg": -1.0}
    reward = resolve(file, {}, ["rewards.jpeg.timeout=9"]).rewards["jpeg"]
    assert reward.spec() == {"weight": 2.0, "timeout": 9.0}


def test_the_name_of_a_reward_may_have_dots(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(_REWARD)
    name = f"{tmp_path}/mine.py:Blue"
    sets = [f"rewards={{{name}: 2}}", f"rewards.{name}.strength=3", f"rewards.{name}.timeout=1"]
    (reward,) = resolve(None, {}, sets, allow_plugins=True).rewards.values()
    assert reward.spec() == {"weight": 2.0, "timeout": 1.0, "strength": 3}


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
