"""Every announced backbone conforms to its contract, on a small genuine pipeline."""

import pytest
from test_backbones import FAMILIES

from treerl.check.kinds import findings


@pytest.mark.parametrize("name", FAMILIES)
def test_the_conformance_kit_finds_nothing_wrong(name: str) -> None:
    results = list(findings("backbone", name, "miniature", [], False))
    assert results
    assert [line for finding in results if finding.wrong for line in finding.lines()] == []
