"""The documentation's code runs, its settings exist, and its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from treerl.config.schema import FIELDS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page under docs/extending."""
    text = (ROOT / "docs" / "extending" / page).read_text(encoding="utf-8")
    return [code for name, code in BLOCK.findall(text) if name == language]


def write_files(page: str, folder: Path) -> list[Path]:
    """The page's Python files, named by their first line."""
    paths = []
    for code in [*blocks(page, "python"), *blocks(page, "yaml")]:
        name = code.splitlines()[0].removeprefix("# ")
        assert name.endswith((".py", ".yaml")), code
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code, encoding="utf-8")
        paths.append(folder / name)
    assert paths
    return paths


def commands(page: str) -> list[list[str]]:
    return [
        shlex.split(line)
        for code in blocks(page, "")
        for line in code.splitlines()
        if line.startswith("treerl ")
    ]


@pytest.mark.parametrize(("page", "most"), [("weighting.md", 10), ("reward.md", 15)])
def test_the_first_example_is_short(page: str, most: int) -> None:
    code = blocks(page, "python")[0]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= most


@pytest.mark.parametrize("page", ["weighting.md", "reward.md", "others.md", "backbone.md"])
def test_every_command_of_the_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    assert commands(page)
    small = ["train.iterations=1", "train.prompts=1", "evaluate.prompts=2", "tree.depth=2"]
    for number, (_, verb, *words) in enumerate(commands(page)):
        if verb == "run":
            words += [
                "--output",
                f"run{number}",
                *(part for one in small for part in ("--set", one)),
            ]
        done = subprocess.run(
            [sys.executable, "-m", "treerl", verb, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "sha256:" in done.stderr


def test_every_setting_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([a-z_.]+)` \|", text, re.M))
    assert named == {path for path in FIELDS if not path.endswith(".options")}


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"
