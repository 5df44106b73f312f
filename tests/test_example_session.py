"""The example that trains the tiny model: a file of its own, as files are spread over cores."""

import pytest
from printing import printed


@pytest.mark.slow
def test_a_session_learns() -> None:
    lines = printed("session.py")
    assert lines[0].startswith("before") and lines[-1].startswith("after")
    figures = [float(line.split()[-1]) for line in lines]
    assert len(figures) == 17
    assert figures[-1] > figures[0]
