"""The structure of the repository: announced plug-ins, packaged folders, sizes of files."""

import ast
import dataclasses
import importlib
import inspect
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
SHELVES = ("backbones", "rewards", "envs")
FORBIDDEN_CALLS = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "os.system"}
FORBIDDEN = {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}


def imports(source: str) -> Iterator[str]:
    """The modules that a piece of source imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            if node.module == "treerl":
                yield from (f"treerl.{alias.name}" for alias in node.names)


def wrong_imports(place: str, source: str) -> list[str]:
    """Imports that point the wrong way for a file of `place` ("treerl" or a shelf)."""
    others = [shelf for shelf in SHELVES if shelf != place]
    banned = [f"treerl.{shelf}" for shelf in others] + list(SHELVES)
    return [
        name
        for name in imports(source)
        if any(name == other or name.startswith(other + ".") for other in banned)
    ]


def unannounced(files: set[str], entry_points: dict[str, str], shelf: str) -> set[str]:
    """Plug-in files of a shelf that no entry point names, and entry points that name no file."""
    named = {
        target.partition(":")[0].removeprefix(f"treerl.{shelf}.")
        for target in entry_points.values()
    }
    return {name for name in files if not name.startswith("_")} ^ named


def unpackaged(folders: set[str], packages: set[str]) -> set[str]:
    """Folders with code that the wheel would leave out."""
    return folders - packages


def forbidden_calls(source: str) -> list[str]:
    """Calls that run code hidden in data."""
    calls = [name for name in imports(source) if name.partition(".")[0] in FORBIDDEN]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            # published reward weights leave no choice but torch.load, if it refuses all but tensors
            tensors = any(
                (word.arg, ast.unparse(word.value)) == ("weights_only", "True")
                for word in node.keywords
            )
            if name in FORBIDDEN_CALLS or (name == "torch.load" and not tensors):
                calls.append(name)
            calls += [
                "shell=True"
                for word in node.keywords
                if (word.arg, ast.unparse(word.value)) == ("shell", "True")
            ]
    return calls


def too_long(source: str, most_file: int = 250, most_function: int = 50) -> list[str]:
    """What is too long to be read in one go."""
    count = len(source.splitlines())
    parts = [f"{count} lines"] if count > most_file else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > most_function:
                parts.append(f"{node.name}: {length} lines")
    return parts


def project() -> dict[str, dict[str, dict[str, str]]]:
    loaded: dict[str, dict[str, dict[str, str]]] = tomllib.loads(
        (ROOT / "pyproject.toml").read_text()
    )
    return loaded


def sources(place: str) -> list[Path]:
    paths = sorted((ROOT / place).rglob("*.py"))
    assert paths, f"{place} holds no code: this check would check nothing"
    return paths


@pytest.mark.parametrize("place", ["treerl", *SHELVES])
def test_imports_point_one_way(place: str) -> None:
    for path in sources(place):
        assert wrong_imports(place, path.read_text()) == [], path


@pytest.mark.parametrize("shelf", SHELVES)
def test_every_plug_in_is_announced(shelf: str) -> None:
    files = {path.stem for path in sources(shelf)} - {"__init__"}
    points: dict[str, str] = project()["project"]["entry-points"][f"treerl.{shelf}"]  # type: ignore[assignment]
    assert unannounced(files, points, shelf) == set()


PARTS = {
    "kernels": "kernel:Kernel",
    "branchings": "branching:Branching",
    "normalisers": "normaliser:Normaliser",
    "couplings": "coupling:Coupling",
    "weightings": "weighting:Weighting",
    "baselines": "baseline:Baseline",
    "selections": "selection:Selection",
    "objectives": "objective:Objective",
}


def modules_of(kind: str, contract: str) -> list[ModuleType]:
    """The contract's module of the engine, and those of its shelf where there is one."""
    names = [f"treerl.engine.{contract}"]
    for path in sorted((ROOT / "treerl" / "engine" / kind).glob("[!_]*.py")):
        names.append(f"treerl.engine.{kind}.{path.stem}")
    return [importlib.import_module(name) for name in names]


@pytest.mark.parametrize("kind", PARTS)
def test_every_part_of_an_algorithm_that_the_engine_has_is_announced(kind: str) -> None:
    module, _, contract = PARTS[kind].partition(":")
    modules = modules_of(kind, module)
    base: type = getattr(modules[0], contract)
    built_in = {}
    for engine in modules:
        for name, part in vars(engine).items():
            if name.startswith("_"):  # a part of another part
                continue
            if isinstance(part, type) and issubclass(part, base) and not inspect.isabstract(part):
                if part is not base and part.__module__ == engine.__name__:
                    built_in[f"{engine.__name__}:{name}"] = part
    points: dict[str, str] = project()["project"]["entry-points"][f"treerl.{kind}"]  # type: ignore[assignment]
    assert set(points.values()) == set(built_in)
    assert all(dataclasses.is_dataclass(part) for part in built_in.values())


def test_every_folder_with_code_is_packaged() -> None:
    folders = {"treerl"} | {f"treerl.{shelf}" for shelf in SHELVES if sources(shelf)}
    for path in (ROOT / "treerl").rglob("*.py"):
        folders.add(".".join(path.parent.relative_to(ROOT).parts))
    assert unpackaged(folders, set(project()["tool"]["setuptools"]["packages"])) == set()


@pytest.mark.parametrize("place", ["treerl", *SHELVES])
def test_nothing_runs_code_hidden_in_data(place: str) -> None:
    for path in sources(place):
        assert forbidden_calls(path.read_text()) == [], path


@pytest.mark.parametrize("place", ["treerl", *SHELVES, "tests", "scripts", "benchmarks"])
def test_files_and_functions_can_be_read_in_one_go(place: str) -> None:
    for path in sources(place):
        assert too_long(path.read_text()) == [], path


def test_each_check_fails_when_its_rule_is_broken() -> None:
    assert wrong_imports("treerl", "from treerl.rewards.shapes import Shapes") == [
        "treerl.rewards.shapes"
    ]
    assert wrong_imports("treerl", "def f():\n    from treerl import backbones") == [
        "treerl.backbones"
    ]
    assert wrong_imports("rewards", "import treerl.backbones.sd35") == ["treerl.backbones.sd35"]
    assert wrong_imports("rewards", "from treerl.rewards import shapes") == []
    assert wrong_imports("treerl", "import rewards") == ["rewards"]
    assert unannounced({"hps", "_crop"}, {}, "rewards") == {"hps"}
    assert unannounced(set(), {"hps": "treerl.rewards.hps:HPS"}, "rewards") == {"hps"}
    assert unpackaged({"treerl", "treerl.envs"}, {"treerl"}) == {"treerl.envs"}
    assert forbidden_calls("torch.load(p)") == ["torch.load"]
    assert forbidden_calls("torch.load(p, weights_only=False)") == ["torch.load"]
    assert forbidden_calls("torch.load(p, weights_only=True)") == []
    assert forbidden_calls("import pickle\neval('1')\nrun('x', shell=True)") == [
        "pickle",
        "eval",
        "shell=True",
    ]
    assert too_long("x = 1\n" * 251) == ["251 lines"]
    assert too_long("def f():\n" + "    x = 1\n" * 50) == ["f: 51 lines"]
