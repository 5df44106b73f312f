"""Settings that are valid alone but impossible together."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treerl.engine.branching import kept, width

if TYPE_CHECKING:
    from treerl.config.schema import Config, Tree


@dataclass(frozen=True)
class Conflict:
    """The dotted paths that disagree, the one to change first, and what was expected."""

    paths: tuple[str, ...]
    message: str


def conflicts(config: "Config") -> list[Conflict]:
    """Everything that does not fit together; empty for a configuration that can run."""
    found = [*_window(config), *_training(config), *_size(config), *_watch(config)]
    # a depth that does not fit has no bound, and its power of the branching factor would take for ever
    fits = width(config.tree.depth, config.env.steps) < config.env.steps
    return [*found, *_groups(config), *_updates(config)] if fits else found


def _window(config: "Config") -> Iterator[Conflict]:
    """The last step has no density, so a window ends before it."""
    tree, last = config.tree, config.env.steps - 1
    depth = width(tree.depth, config.env.steps)
    if depth > last:
        yield Conflict(
            ("tree.depth", "env.steps"), f"expected a depth <= env.steps - 1 = {last}, got {depth}"
        )
    if tree.window == "fixed" and tree.start is None:
        yield Conflict(
            ("tree.start", "tree.window"), "expected a start, which a fixed window needs, got null"
        )
    if tree.window in ("geometric", "uniform", "shift") and tree.start is not None:
        message = f"expected null with tree.window = {tree.window} (only a fixed window has a start), got {tree.start}"
        yield Conflict(("tree.start", "tree.window"), message)
    elif tree.start is not None and depth <= last < tree.start + depth:
        paths = ("tree.start", "tree.depth", "env.steps")
        yield Conflict(
            paths, f"expected start + depth <= env.steps - 1 = {last}, got {tree.start} + {depth}"
        )


def _groups(config: "Config") -> Iterator[Conflict]:
    """A group needs two leaves to compare, and no more than was allowed."""
    tree, depth = config.tree, width(config.tree.depth, config.env.steps)
    leaves = tree.roots * tree.branch**depth
    paths = ("tree.roots", "tree.branch", "tree.depth")
    sum_ = f"{tree.roots} * {tree.branch}^{depth}"  # spelled out: the number itself may have a thousand digits
    if leaves > tree.max_leaves:
        yield Conflict(
            (*paths, "tree.max_leaves"),
            f"expected at most {tree.max_leaves} leaves a prompt, got {sum_}",
        )
    if leaves == 1:
        yield Conflict(
            paths,
            f"expected at least 2 leaves a prompt, as a group of one has no advantage, got {sum_}",
        )
    baseline = config.advantage.baseline
    if baseline in ("siblings", "parent") and tree.branch == 1:
        message = f"expected tree.branch >= 2, as without siblings the baseline {baseline} makes every advantage 0, got 1"
        yield Conflict(("advantage.baseline", "tree.branch"), message)


def nodes(tree: "Tree", steps: int) -> int:
    """How many nodes of one tree have a decision to train: those that a stochastic step leaves from."""
    depth = width(tree.depth, steps)
    return depth if tree.branch == 1 else (tree.branch**depth - 1) // (tree.branch - 1)


def _updates(config: "Config") -> Iterator[Conflict]:
    train, tree = config.train, config.tree
    count = train.prompts * tree.roots * kept(nodes(tree, config.env.steps), tree.fraction)
    if train.updates > count:
        paths = ("train.updates", "train.prompts", "tree.roots", "tree.branch", "tree.depth")
        yield Conflict(
            paths,
            f"expected at most {count} updates, one for each node of an iteration, got {train.updates}",
        )


def _training(config: "Config") -> Iterator[Conflict]:
    if config.objective.kl > 0 and config.train.weights == "full":
        message = f"expected 0 with train.weights = full (the reference is the adapter off), got {config.objective.kl}"
        yield Conflict(("objective.kl", "train.weights"), message)
    dtype = config.backbone.dtype
    if config.train.weights == "full" and dtype == "float16":
        message = f"expected float32 or bfloat16 with train.weights = full (gradients underflow), got {dtype}"
        yield Conflict(("backbone.dtype", "train.weights"), message)


def _watch(config: "Config") -> Iterator[Conflict]:
    both = [name for name in config.watch if name in config.rewards]
    if both:
        yield Conflict(
            ("watch", "rewards"), f"expected rewards that are not trained on, got {', '.join(both)}"
        )
    if len(set(config.watch)) < len(config.watch):
        yield Conflict(("watch",), f"expected each reward once, got {', '.join(config.watch)}")


def _size(config: "Config") -> Iterator[Conflict]:
    height, width = config.backbone.height, config.backbone.width
    if (height is None) != (width is None):
        message = (
            f"expected both or neither, got height {height or 'null'} and width {width or 'null'}"
        )
        yield Conflict(("backbone.height", "backbone.width"), message)
