"""What a run does when the code of a user's own file fails: one line that says where."""

import io
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

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
    line = fault(caught.value)
    assert (line is not None) == own_file
    assert line is None or ("errors.py:" in line and "describe raised TypeError: " in line)
    assert fault(SystemExit(0)) is None
