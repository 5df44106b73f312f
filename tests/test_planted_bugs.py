"""The list of planted bugs fits the code that stands here: each has just one place in it."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "benchmarks" / "planted_bugs.py"
    spec = importlib.util.spec_from_file_location("planted_bugs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_every_bug_has_one_place_and_leaves_code(script: ModuleType) -> None:
    bugs = script.read()
    assert len(bugs) >= 60 and len({bug.what for bug in bugs}) == len(bugs)
    for bug in bugs:
        source = (ROOT / bug.file).read_text(encoding="utf-8")
        planted = bug.planted(source)
        assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(source)), bug.what


def test_every_bug_names_tests_that_are_there(script: ModuleType) -> None:
    for bug in script.read():
        assert bug.tests, bug.what
        for name in bug.tests:
            file, _, test = name.partition("::")
            text = (ROOT / file).read_text(encoding="utf-8")
            assert f"def {test.partition('[')[0]}(" in text or not test, name


def test_a_bug_whose_place_is_gone_or_not_alone_is_refused(script: ModuleType) -> None:
    bug = script.Bug("a bug", "a.py", "x = 1", "x = 2", ("tests/test_a.py",))
    assert bug.planted("x = 1\n") == "x = 2\n"
    for source in ("y = 1\n", "x = 1\nx = 1\n"):
        with pytest.raises(ValueError, match=r"^a\.py: expected once, found [02] times: 'x = 1'$"):
            bug.planted(source)
