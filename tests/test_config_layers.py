"""Recipes, presets, files, flags and --set lie over one another: what stays, what is dropped."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

from treerl.config import resolve as loading, yaml as reader
from treerl.config.algorithm import PATHS, algorithm_of, recipe_settings
from treerl.config.layers import nested
from treerl.config.resolve import dump, resolve
from treerl.config.schema import Config
from treerl.config.yaml import Item
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


@pytest.mark.parametrize("recipe", list(recipes))
def test_a_recipe_survives_its_settings(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_preset", lambda layers, recipe: [])
    config = resolve(None, {"recipe": recipe}, [])
    assert algorithm_of(config) == recipes[recipe]
    assert algorithm_of(resolve(_run_file(tmp_path, dump(config)), {}, [])) == recipes[recipe]


def test_settings_without_a_recipe_are_those_of_the_default_recipe() -> None:
    assert algorithm_of(Config()) == recipes["treerl"]


@pytest.mark.parametrize("name", ["sd35", "flux", "wan", "sdxl"])
def test_only_the_tiny_models_finish_their_samples_in_one_move(name: str) -> None:
    """One long tail is known to draw well enough to be scored on the tiny models alone."""
    tiny = resolve(None, {"backbone.name": name, "backbone.model": "tiny"}, [])
    published = resolve(None, {"backbone.name": name}, [])
    assert tiny.tree.tail_stride == (1 if name == "sdxl" else 5)  # there is no tiny SDXL
    assert published.tree.tail_stride == 1


def test_a_backbone_of_ones_own_finishes_its_samples_step_by_step() -> None:
    own = nested("backbone.name", Item.of("./mine.py:Mine", "here"))
    _, kept = loading._preset([own], [])
    assert kept.plain() == {"tree": {"tail_stride": 1}}


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
    ours = replace(recipes["treerl"], optimizer_steps=1, ppo_epochs=1, trees_per_prompt=9)
    monkeypatch.setattr("treerl.engine.recipes.recipes", {**recipes, "treerl": ours})
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    (tmp_path / "config" / "presets").mkdir(parents=True)
    preset = tmp_path / "config" / "presets" / "sd35-tiny.yaml"
    preset.write_text("train: {optimizer_steps: 2, ppo_epochs: 2, threads: 2, lora_rank: 2}\n")
    preset.with_name("other.yaml").write_text("train: {threads: 7}\n")
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
    # the preset was the tiny model's: this one has none of its own
    assert (other.train.optimizer_steps, other.train.threads) == (1, 7)
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
    paper: dict[str, object] = {"recipe": "treegrpo"}  # of another branching
    kept = resolve(file, paper, more).tree.branching.params
    assert kept == {"branching_factor": 1, "depth": 3, "start": 1}
    changed = resolve(file, paper, ["tree.branching.name=shift"]).tree.branching
    assert (changed.name, changed.params["depth"]) == ("shift", 4)
    same = resolve(file, paper, ["tree.branching=fixed", "tree.trees_per_prompt=2"]).tree.branching
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


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        path = f"{prefix}{key}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat
