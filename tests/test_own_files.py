"""How a command ends when a user's own file fails, or the system refuses: one line, its code."""

import io
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path
from types import ModuleType

import pytest

from treerl import __main__
from treerl.cli import main
from treerl.errors import OWN_FILES, describe, fault

BRANCHING = """
from dataclasses import dataclass
from treerl.engine.branching import Geometric

@dataclass(frozen=True)
class Mine(Geometric):
    def support(self, steps):
        raise {}
"""


@pytest.mark.parametrize(
    "error", ["SystemExit(0)", "GeneratorExit", "type('Own', (BaseException,), {})('\\x1b[2J')"]
)
def test_what_a_file_of_ones_own_raises_is_one_line_with_its_place(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(BRANCHING.format(error))
    words = ("plan", "--allow-plugins", "--set", "tree.branching=./mine.py:Mine")
    err = io.StringIO()
    with redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 1
    *announced, line = err.getvalue().splitlines()
    assert line.startswith("treerl: ") and "mine.py:8: Mine.support raised " in line
    assert line.isprintable() and all(text.startswith("plug-in ") for text in announced)


@pytest.mark.parametrize("own_file", [True, False])
def test_only_with_files_of_ones_own_an_error_of_ours_is_one_line(
    own_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(OWN_FILES)]:
        monkeypatch.delitem(sys.modules, name)
    if own_file:
        monkeypatch.setitem(sys.modules, f"{OWN_FILES}0", sys)
    with pytest.raises(TypeError) as caught:
        describe(None)  # type: ignore[arg-type]
    found = fault(caught.value)
    assert (found is not None) == own_file
    if found is not None:
        assert found.code == 1
        assert "errors.py:" in str(found) and "describe raised TypeError: " in str(found)
    assert fault(SystemExit(0)) is None


@pytest.mark.parametrize("error", [OSError(28, "full"), OSError(36, "long", "a\x1b"), OSError()])
def test_what_the_system_refuses_and_nobody_foresaw_is_one_line(error: OSError) -> None:
    found = fault(error)
    assert found is not None and found.code == 4 and str(found).isprintable()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_an_answer_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "treerl", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 4
    assert done.stderr == "treerl: OSError: [Errno 28] No space left on device\n"


class Interrupted(ModuleType):
    """A module during whose import the user presses Ctrl-C."""

    def __getattr__(self, name: str) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_during_the_imports_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "treerl.cli", Interrupted("treerl.cli"))
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 130
