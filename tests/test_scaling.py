"""The script that measures what the engine costs runs, and counts what it says it counts."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_quick_run_gives_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--output", str(file)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert [row["nodes"] for row in figures["forests"]] == [203, 812, 2639]
    assert set(figures["lines"]) == {"grow", "credit", "minibatches"}
    tiny = figures["tiny"]
    assert tiny.pop("seconds") > 0 and sum(tiny.values()) == pytest.approx(1)
    assert all(0 < part < 1 for part in tiny.values()), tiny
    assert "engine" in done.stdout and "R2" in done.stdout


def test_a_straight_line_is_found_with_how_much_it_explains(scaling: ModuleType) -> None:
    nodes = [1000, 3000, 10_000]
    fit = scaling.line(nodes, [0.002 + 5e-6 * count for count in nodes])
    assert fit == pytest.approx({"us_per_node": 5, "fixed_ms": 2, "r2": 1})
    assert scaling.line([1, 2, 3], [1, 0, 1])["r2"] == pytest.approx(0)


def test_a_method_within_a_watched_one_counts_once(scaling: ModuleType) -> None:
    class Work:
        def outer(self) -> str:
            return self.inner()

        def inner(self) -> str:
            return "done"

    clock = scaling.Clock()
    ends = [clock.watch(Work, name, name) for name in ("outer", "inner")]
    assert Work().outer() == "done" and set(clock.spent) == {"outer"}
    Work().inner()
    assert set(clock.spent) == {"outer", "inner"}
    for end in ends:
        end()
    clock.spent.clear()
    assert Work().outer() == "done" and not clock.spent
