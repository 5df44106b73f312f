"""The documentation's pages as tests read them: their files, commands and settings."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
EXTENDING = ROOT / "docs" / "extending"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# every opening has a page; the index and the page of backbones are read by other tests
OPENINGS = sorted(
    page for page in EXTENDING.glob("*.md") if page.stem not in ("README", "backbone")
)
_BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language; "" are the commands."""
    text = page.read_text(encoding="utf-8")
    return [code for name, code in _BLOCK.findall(text) if name == language]


def files(page: Path) -> dict[str, str]:
    """The page's files by the name that their first line gives."""
    named = {}
    for code in [*blocks(page, "python"), *blocks(page, "yaml")]:
        name = code.splitlines()[0].removeprefix("# ")
        assert name.endswith((".py", ".yaml")), f"{page.name}: a block without a name: {name}"
        named[name] = code
    return named


def write_files(page: Path, folder: Path) -> None:
    """Put the page's files where its commands look for them."""
    for name, code in files(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")


def commands(page: Path) -> list[list[str]]:
    """The words of every `treerl` command of a page, without the first."""
    lines = [line for code in blocks(page, "") for line in code.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("treerl ")]


def checked(page: Path) -> list[tuple[str, str]]:
    """The plug-ins `(kind, "file.py:Class")` that a page tells its reader to check."""
    return [
        (words[1], words[2].removeprefix("./")) for words in commands(page) if words[0] == "check"
    ]


def load(path: Path, name: str) -> Any:
    """The object `name` of a Python file."""
    module = f"page_{path.stem}_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return getattr(loaded, name)
