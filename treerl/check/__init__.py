"""The conformance kit: says of a plug-in what was expected, what came, and how to mend it."""

from collections.abc import Callable, Iterator

from treerl.check import backbone, reward
from treerl.check.finding import Finding
from treerl.config.schema import Config

CHECKED: dict[str, Callable[[Config], Iterator[Finding]]] = {
    "backbone": backbone.findings,
    "reward": reward.findings,
}  # by kind of plug-in
