"""Settings that are valid alone but impossible together; trees and plug-ins are asked, not recomputed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treerl.engine.baseline import Baseline
from treerl.engine.branching import Branching, TreeSpec
from treerl.engine.selection import Selection

if TYPE_CHECKING:
    from treerl.config.schema import Config

_READABLE = 10**12  # beyond, a number of leaves is not spelled out


@dataclass(frozen=True)
class Conflict:
    """The dotted paths that disagree, the one to change first, and what was expected."""

    paths: tuple[str, ...]
    message: str


def conflicts(config: "Config") -> list[Conflict]:
    """Everything that does not fit together; empty for a configuration that can run."""
    branching: Branching = config.tree.branching.build()
    try:
        support = branching.support(config.env.steps)
    except ValueError as error:
        return [Conflict(("tree.branching", "env.steps"), str(error)), *_watch(config)]
    found = [*_watch(config), *_lengths(config, support)]
    return found or [*_groups(config, support), *_updates(config, support), *_precision(config)]


def _lengths(config: "Config", support: tuple[TreeSpec, ...]) -> Iterator[Conflict]:
    """The last step has no density, so it cannot be sampled."""
    steps = config.env.steps
    paths = ("tree.branching", "env.steps")
    for spec in support:
        if spec.steps != steps:
            yield Conflict(paths, f"expected trees of env.steps = {steps} steps, got {spec.steps}")
            return
        if spec.stochastic[-1]:
            yield Conflict(paths, "expected a deterministic last step, which has no density")
            return


def _groups(config: "Config", support: tuple[TreeSpec, ...]) -> Iterator[Conflict]:
    """A group needs two leaves to compare, and no more than was allowed."""
    trees = config.tree.trees_per_prompt
    most = max(spec.leaves for spec in support)
    fewest = min(spec.leaves for spec in support)
    paths = ("tree.branching", "tree.trees_per_prompt")
    if trees * most > config.tree.max_leaves:
        leaves = str(most) if most < _READABLE else "more than 10^12"
        text = f"expected at most {config.tree.max_leaves} leaves a prompt, got {trees} * {leaves}"
        yield Conflict((*paths, "tree.max_leaves"), text)
    if trees * fewest < 2:
        text = "expected at least 2 leaves a prompt, as a group of one has no advantage, got 1"
        yield Conflict(paths, text)
    baseline: Baseline = config.advantage.baseline.build()
    chains = any(max(spec.children) == 1 for spec in support)
    if baseline.needs_siblings and chains and not config.tree.previews:
        name = config.advantage.baseline.name
        text = f"expected trees that branch, as without siblings {name} makes every advantage 0"
        yield Conflict(("advantage.baseline", "tree.branching"), text)


def _updates(config: "Config", support: tuple[TreeSpec, ...]) -> Iterator[Conflict]:
    selection: Selection = config.train.selection.build()
    trees = config.train.prompts_per_iteration * config.tree.trees_per_prompt
    nodes = trees * min(selection.decisions(spec) for spec in support)
    steps = config.train.optimizer_steps
    if steps > nodes:
        paths = ("train.optimizer_steps", "train.prompts_per_iteration", "tree.branching")
        text = f"expected at most {nodes} steps, one for each node of an iteration, got {steps}"
        yield Conflict(paths, text)


def _precision(config: "Config") -> Iterator[Conflict]:
    dtype = config.backbone.get("dtype")
    if config.train.trainable == "full" and dtype == "float16":
        text = (
            "expected float32 or bfloat16 with train.trainable = full (gradients underflow), "
            "got float16"
        )
        yield Conflict(("backbone.dtype", "train.trainable"), text)


def _watch(config: "Config") -> Iterator[Conflict]:
    both = [name for name in config.watch if name in config.rewards]
    if both:
        text = f"expected rewards that are not trained on, got {', '.join(both)}"
        yield Conflict(("watch", "rewards"), text)
