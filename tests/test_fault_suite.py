"""The script that runs every trial of the reliability page, and says which ended wrong."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    script = ROOT / "benchmarks" / "fault_suite.py"
    spec = importlib.util.spec_from_file_location("fault_suite", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fault_suite", module)  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def test_every_trial_is_a_script_and_a_row_of_the_page(suite: ModuleType) -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for trial in suite.TRIALS:
        script = trial.words.split()[0]
        assert (ROOT / "benchmarks" / script).is_file(), trial
        assert f"`python benchmarks/{trial.words.replace('DIR/alarm', 'DIR')}`" in page, trial


@pytest.mark.parametrize("alone", [False, True])
def test_what_ended_wrong_is_told(
    suite: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    alone: bool,
) -> None:
    (tmp_path / "good.py").write_text(
        "import sys\nprint('begins')\nprint(sys.argv[1] + ' is well')"
    )
    (tmp_path / "bad.py").write_text("raise SystemExit('2 | 3 are wrong')")
    trials = (suite.Trial("good", "good.py all"), suite.Trial("bad", "bad.py", alone))
    monkeypatch.setattr(suite, "_HERE", tmp_path)
    monkeypatch.setattr(suite, "TRIALS", trials)
    output = tmp_path / "logs"
    monkeypatch.setattr(sys, "argv", ["fault_suite.py", "--output", str(output), "--jobs", "2"])
    assert suite.main() == 1
    rows = (output / "summary.md").read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == rows
    assert sorted(rows[2:]) == [
        "| bad | `python benchmarks/bad.py` | 0.0 | 1 | 2 · 3 are wrong |",
        "| good | `python benchmarks/good.py all` | 0.0 | 0 | all is well |",
    ]
    assert (output / "good.log").read_text() == "begins\nall is well\n"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", "good"])
    assert suite.main() == 0
