"""Every part of an algorithm that is announced keeps its contract with its default parameters."""

import pytest

from treerl import registry
from treerl.check.component import COMPONENTS, length
from treerl.check.finding import run
from treerl.engine.branching import Branching, Distribution, ode, window

ANNOUNCED = [(kind, name) for kind in COMPONENTS for name in registry.announced(kind)]


@pytest.mark.parametrize(("kind", "name"), ANNOUNCED)
def test_what_is_announced_keeps_its_contract(kind: str, name: str) -> None:
    findings = list(run(COMPONENTS[kind], registry.build(kind, name, {})))
    assert len(findings) == len(COMPONENTS[kind])
    assert [line for finding in findings if finding.wrong for line in finding.lines()] == []


class Half(Branching):
    """Forgets to sample in half of its trees."""

    def distribution(self, steps: int, iteration: int) -> Distribution:
        return ((0.5, window(steps, 0, 2, 2)), (0.5, ode(steps)))


def test_a_branching_some_of_whose_trees_train_nothing_is_found() -> None:
    (finding,) = run([length], Half())
    assert finding.wrong and "some unsampled: True" in finding.came
