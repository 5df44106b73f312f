"""The examples of the package, run as a user runs them."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def printed(name: str, *words: str) -> list[str]:
    """The lines that an example prints."""
    done = subprocess.run(
        [sys.executable, name, *words], cwd=EXAMPLES, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
