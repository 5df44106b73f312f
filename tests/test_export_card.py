"""The model card of an export: its snippet is Python that loads what it says."""

import ast
import subprocess
from pathlib import Path

import pytest
from processes import run_script
from test_export import trained

from treerl.run.export import export


@pytest.mark.slow
def test_the_snippet_names_the_model_whatever_its_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", run_script)
    folder = tmp_path / 'a "model" \\ of {mine}, ß🌳'
    export(trained("sd15", folder), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    code = ast.parse(card.split("```python\n")[1].split("```")[0])
    texts = [node.value for node in ast.walk(code) if isinstance(node, ast.Constant)]
    assert str(folder / "model") in texts
