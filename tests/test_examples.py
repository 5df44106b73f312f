"""The examples run as they stand, are short, and what they print shows that they learned."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def printed(name: str) -> list[str]:
    """The lines that an example prints."""
    done = subprocess.run(
        [sys.executable, name], cwd=EXAMPLES, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_fits_on_a_screen(path: Path) -> None:
    most = 10 if path.stem == "session" else 40
    assert len(path.read_text(encoding="utf-8").splitlines()) <= most


def test_the_flow_on_the_plane_comes_near_its_point() -> None:
    rewards = [float(line.split()[-1]) for line in printed("plane_flow.py")]
    assert len(rewards) == 5
    assert rewards[0] == pytest.approx(-1.6, abs=0.2) and rewards[-1] > -0.1


def test_two_weightings_are_compared_over_seeds() -> None:
    rows = [
        re.search(r"reward (-[\d.]+) ± ([\d.]+)$", row) for row in printed("compare_weightings.py")
    ]
    figures = [(float(row[1]), float(row[2])) for row in rows if row]
    assert len(figures) == 2
    assert all(mean > -0.3 and 0 < half < 0.3 for mean, half in figures)


def test_a_session_learns() -> None:
    lines = printed("session.py")
    assert lines[0].startswith("before") and lines[-1].startswith("after")
    figures = [float(line.split()[-1]) for line in lines]
    assert len(figures) == 17
    assert figures[-1] > figures[0]
