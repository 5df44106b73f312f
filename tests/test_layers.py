"""The house's rooms: imports point downwards, there is no circle, and each rule can fail."""

import sys
from pathlib import Path

import layers
import pytest
from layers import HEIGHT, SHELVES, circle, imported, unneeded, upward

ROOT = Path(__file__).parent.parent
AT_THE_TOP = {"__init__", "errors", "registry", "recipes", "cli", "__main__"}


def sources() -> dict[str, str]:
    """Every module of the project by its import name."""
    modules = {}
    for folder in ("treerl", *sorted(SHELVES)):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if folder in SHELVES:
                parts.insert(0, "treerl")
            if parts[-1] == "__init__":
                parts.pop()
            modules[".".join(parts)] = path.read_text(encoding="utf-8")
    assert len(modules) > 40, "hardly any code: this check would check nothing"
    return modules


def test_no_module_stands_at_the_top_but_the_six_named() -> None:
    assert {path.stem for path in (ROOT / "treerl").glob("*.py")} <= AT_THE_TOP


def test_every_room_has_its_layer() -> None:
    assert {layers.room(module) for module in sources()} <= set(HEIGHT)


def test_every_import_points_downwards() -> None:
    assert upward(sources()) == []


@pytest.mark.parametrize("by_room", [False, True], ids=["modules", "rooms"])
def test_no_imports_run_in_a_circle(by_room: bool) -> None:
    assert circle(sources(), by_room) == []


def test_every_exception_is_still_needed() -> None:
    assert unneeded(sources()) == []


def test_the_engine_imports_torch_numpy_errors_and_its_annotations_alone() -> None:
    known = {"torch", "numpy", "annotated_types"}
    for module, source in sources().items():
        if layers.room(module) == "engine":
            outside = {name.partition(".")[0] for name in imported(module, source)} - {"treerl"}
            assert outside - known <= sys.stdlib_module_names, module


MADE_UP = {
    "treerl": "",
    "treerl.errors": "",
    "treerl.registry": "",
    "treerl.engine": "",
    "treerl.engine.tree": "",
    "treerl.engine.grow": "from treerl.engine import tree\nfrom treerl.errors import InputError",
    "treerl.backbone.contract": "from treerl.engine.grow import grow",
    "treerl.reward.contract": "from treerl import registry",
    "treerl.toy.shapes": "from treerl.engine.grow import grow",
    "treerl.config.schema": "import treerl.backbone.contract\nimport treerl.reward.contract",
    "treerl.run.run": "from treerl.config.schema import Config\nfrom treerl.toy import shapes",
    "treerl.report.page": "from treerl.run import run",
    "treerl.check.check": "from treerl.run.run import run",
    "treerl.gym": "from treerl.engine import grow\nfrom treerl.run import run",
    "treerl.recipes": "from treerl.engine.grow import grow",
    "treerl.cli": "from treerl.report.page import page",
    "treerl.__main__": "from treerl.cli import main",
    "treerl.rewards.shapes": "from treerl.toy.shapes import draw\nimport treerl.reward.contract",
    "treerl.backbones.sd35": "from treerl.backbone.contract import Backbone",
}


def test_a_house_that_keeps_the_rules_passes() -> None:
    assert upward(MADE_UP) == [] == circle(MADE_UP) == circle(MADE_UP, by_room=True)
    assert {layers.room(module) for module in MADE_UP} <= set(HEIGHT)


@pytest.mark.parametrize(
    ("module", "source", "target"),
    [
        ("treerl.engine.tree", "from treerl.config.schema import Config", "treerl.config.schema"),
        ("treerl.engine.tree", "def f():\n    import treerl.run.run", "treerl.run.run"),
        ("treerl.engine.tree", "from treerl import registry", "treerl.registry"),
        (
            "treerl.engine.tree",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from treerl.gym import A",
            "treerl.gym",
        ),
        ("treerl.engine.tree", "from ..reward import contract", "treerl.reward.contract"),
        ("treerl.engine.tree", "from treerl import Trainer", "treerl"),
        ("treerl.errors", "import treerl.engine.tree", "treerl.engine.tree"),
        ("treerl.registry", "import treerl.engine.tree", "treerl.engine.tree"),
        ("treerl.backbone.contract", "import treerl.reward.contract", "treerl.reward.contract"),
        ("treerl.toy.shapes", "import treerl.registry", "treerl.registry"),
        ("treerl.recipes", "import treerl.registry", "treerl.registry"),
        ("treerl.gym", "import treerl.recipes", "treerl.recipes"),
        ("treerl.config.schema", "from treerl.run import run", "treerl.run.run"),
        ("treerl.run.run", "from treerl.report import page", "treerl.report.page"),
        ("treerl.report.page", "import treerl.check.check", "treerl.check.check"),
        ("treerl.check.check", "import treerl.cli", "treerl.cli"),
        ("treerl.run.run", "import treerl.rewards.shapes", "treerl.rewards.shapes"),
        ("treerl.rewards.shapes", "import treerl.config.schema", "treerl.config.schema"),
        ("treerl.rewards.shapes", "import treerl.backbones.sd35", "treerl.backbones.sd35"),
    ],
)
def test_an_import_upwards_or_sideways_fails(module: str, source: str, target: str) -> None:
    assert upward(MADE_UP | {module: source}) == [(module, target)]


def test_a_circle_of_modules_or_of_rooms_fails() -> None:
    turned = MADE_UP | {"treerl.engine.tree": "def f():\n    from treerl.engine import grow"}
    assert set(circle(turned)) == {"treerl.engine.tree", "treerl.engine.grow"}
    assert circle(turned, by_room=True) == []
    back = MADE_UP | {
        "treerl.engine.tree": "import treerl.gym",
        "treerl.gym": "import treerl.engine.grow",
        "treerl.engine.grow": "",
    }
    assert circle(back) == [] and set(circle(back, by_room=True)) == {"engine", "gym"}


def test_an_exception_that_nothing_needs_fails() -> None:
    assert unneeded(MADE_UP) == list(layers.IN_CIRCLES) + list(layers.UPWARDS)


def test_a_room_without_a_layer_is_seen() -> None:
    assert layers.room("treerl.attic.old") not in HEIGHT
