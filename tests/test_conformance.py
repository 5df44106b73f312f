"""Every announced backbone conforms to its contract, on a small genuine pipeline."""

import pytest
from test_backbones import FAMILIES

from treerl.check.kinds import findings

_OFTEN = ("sd35", "flux", "wan")  # tried with the quick tests, the others with the slow ones
_CASES = [
    pytest.param(name, id=name, marks=[] if name in _OFTEN else pytest.mark.slow)
    for name in FAMILIES
]


@pytest.mark.parametrize("name", _CASES)
def test_the_conformance_kit_finds_nothing_wrong(name: str) -> None:
    results = list(findings("backbone", name, "miniature", [], False))
    assert results
    assert [line for finding in results if finding.wrong for line in finding.lines()] == []
