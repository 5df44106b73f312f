"""The documentation's links, settings, Python and public names are those of the library."""

import dataclasses
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from pages import OPENINGS, PAGES, ROOT, blocks, files
from pydantic import BaseModel

import treerl
from treerl import registry

PYTHON = ROOT / "docs" / "python.md"
# settings that hold a plug-in: below them stand its parameters
PLUGIN_SETTINGS = {
    "backbone": "backbones",
    "kernel": "kernels",
    "tree.branching": "branchings",
    "tree.coupling": "couplings",
    "advantage.normaliser": "normalisers",
    "advantage.weighting": "weightings",
    "advantage.baseline": "baselines",
    "train.selection": "selections",
    "objective": "objectives",
}
TRANSPORT = {"weight", "executor", "timeout"}
# in prose `tree.leaves` and `env.policy` are Python: those sections are read from commands alone
PROSE_SECTIONS = "advantage|objective|scoring|data|train|evaluate"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"


def plain_settings(model: type[BaseModel], prefix: str = "") -> set[str]:
    """The dotted paths of a configuration, sections included."""
    paths = set()
    for name, field in model.model_fields.items():
        paths.add(prefix + name)
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            paths |= plain_settings(inner, f"{prefix}{name}.")
    return paths


@cache
def parameters(kind: str) -> set[str]:
    """The parameters of all announced plug-ins of a kind."""
    holders = [registry.parameters(kind, name) for name in registry.announced(kind)]
    typed = [holder for holder in holders if dataclasses.is_dataclass(holder)]
    return {field.name for holder in typed for field in dataclasses.fields(holder)}


def exists(path: str) -> bool:
    """Whether a setting exists, or is a parameter of a class on one of the extension pages."""
    shown = "\n".join(code for opening in OPENINGS for code in blocks(opening, "python"))
    for setting, kind in PLUGIN_SETTINGS.items():
        if path in (setting, f"{setting}.name"):
            return True
        if path.startswith(f"{setting}."):
            field = path.removeprefix(f"{setting}.")
            return field in parameters(kind) or f"    {field}: " in shown
    if path.startswith(("rewards.", "watch.")):
        field = path.rpartition(".")[2]
        return field in TRANSPORT | parameters("rewards")
    return path in plain_settings(treerl.Config)


def named_settings(page: Path) -> set[str]:
    """Every setting that a page names: in commands, and in prose as `section.setting`."""
    text = page.read_text(encoding="utf-8")
    in_commands = re.findall(r"--set ([a-z_]+(?:\.[a-z_-]+)*)=", text)
    in_prose = re.findall(rf"`((?:{PROSE_SECTIONS})\.[a-z_.]+)(?:=[^`]*)?`", text)
    named = {*in_commands, *in_prose}
    return {path for path in named if not path.endswith((".json", ".txt"))}  # files of data


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_settings_that_a_page_names_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # it tells of settings that are gone
        return
    unknown = sorted(path for path in named_settings(page) if not exists(path))
    assert not unknown


def test_the_settings_test_would_notice() -> None:
    page = ROOT / "docs" / "extending" / "weighting.md"
    assert "advantage.weighting.power" in named_settings(page)
    assert exists("advantage.weighting.power")
    assert not exists("advantage.weighting.powr")
    assert not exists("train.updates")


def test_the_page_names_every_public_name_and_no_other() -> None:
    table = PYTHON.read_text(encoding="utf-8").partition("## Every public name")[2]
    rows = re.findall(r"^\| (`.*?) \|", table, re.M)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(named) == len(set(named))
    assert set(named) == set(treerl.__all__)


@pytest.mark.parametrize("name", treerl.__all__)
def test_a_public_name_says_how_it_is_used(name: str) -> None:
    value = getattr(treerl, name)
    if name == "recipes":
        return  # a mapping; docs/recipes.md tells of it
    text = value.__doc__ if inspect.isfunction(value) else value.__dict__.get("__doc__")
    assert text and not text.startswith(f"{name}("), "a docstring of its own, not a signature"
    if inspect.isclass(value) and issubclass(value, Exception):
        return
    # shapes and code in the docstring, or beside the fields and methods
    assert re.search(rf"`|\[[A-Z]|treerl\.|{name}\(", text + inspect.getsource(value))


@pytest.mark.slow
def test_the_python_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    code = "\n".join(blocks(PYTHON, "python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "trained").is_dir()


@pytest.mark.slow
def test_the_gymnasium_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    code = "\n".join(blocks(ROOT / "docs" / "gymnasium.md", "python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_the_session_of_the_front_page_is_the_example() -> None:
    example = (ROOT / "examples" / "session.py").read_text(encoding="utf-8")
    first = blocks(ROOT / "README.md", "python")[0]
    assert first.strip() == example.partition('"""\n\n')[2].strip()


def test_the_documentation_has_one_word_for_a_thing() -> None:
    old = re.compile(r"\b(pictures?|rooms?|unconditional half|poll)\b", re.I)
    for page in PAGES:
        found = old.findall(page.read_text(encoding="utf-8"))
        assert not found, f"{page.relative_to(ROOT)}: {sorted(set(found))}"


def test_the_index_of_openings_names_every_page() -> None:
    index = ROOT / "docs" / "extending" / "README.md"
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", index.read_text(encoding="utf-8")))
    pages = {page.name for page in index.parent.glob("*.md")} - {"README.md"}
    assert linked == pages


def test_no_line_of_python_on_a_page_is_longer_than_ours() -> None:
    for page in (ROOT / "docs" / "extending").glob("*.md"):
        for name, code in files(page).items():
            longest = max(len(line) for line in code.splitlines())
            assert longest <= 100 or not name.endswith(".py"), f"{page.name}: {name}"
