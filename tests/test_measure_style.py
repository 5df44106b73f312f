"""The script that measures the style counts what it says it counts."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).parent.parent / "scripts" / "measure_style.py"

SOURCE = '''"""Two lines
of docstring."""

# a comment alone
a, b = 1, 2  # a comment behind code
first, *rest = function()
c = [x for x in (y for y in rest)] if a else {k: 1 for k in rest}


def function() -> str:
    """One line."""
    return "%s"
''' % ("x" * 100)


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_style", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_file_is_measured_as_a_reader_would_count_it() -> None:
    style = script().measure(SOURCE)
    assert (style.lines, style.doc, style.comment, style.trailing) == (9, 3, 1, 1)
    assert (style.tuples, style.comprehensions, style.ternaries, style.wide) == (1, 3, 1, 1)
    assert (style.length, style.functions, style.code) == (12, (3,), 5)


def test_the_engine_binds_one_idea_in_one_statement() -> None:
    measure = script().measure
    engine = sorted((SCRIPT.parent.parent / "treerl" / "engine").glob("*.py"))
    styles = [measure(path.read_text(encoding="utf-8")) for path in engine]
    assert sum(style.tuples for style in styles) == 0 == sum(style.wide for style in styles)
