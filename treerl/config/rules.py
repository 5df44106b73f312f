"""Settings that are valid alone but impossible together; what a plug-in decides, it is asked."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from treerl.config.section import Problem
from treerl.errors import first_line, shorten

if TYPE_CHECKING:
    from treerl.engine.tree_spec import Tail, TreeSpec

Config = Any  # a `treerl.config.schema.Config`, whose module imports this one

_MOST = 1_000_000  # samples of an iteration or of an evaluation
_TREES = ("tree.branching", "tree.trees_per_prompt")


def conflicts(config: Config) -> list[Problem]:
    """Everything that does not fit together; empty for a configuration that can run."""
    problems = [*_precision(config), *_quantized(config), *_watch(config)]
    problems += [*_evaluation(config), *_keeping(config), *_sharded(config)]
    tree = config.tree
    branching = tree.branching.build().walked(_tail(tree))
    try:
        specs = branching.support(config.env.steps)
        fewest, most = branching.bounds(tree.trees_per_prompt)
    except Exception as error:  # a rule of the plug-in's own, or its own fault
        fault = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        paths = ("tree.branching", "env.steps")
        return [*problems, Problem(f"{fault}{first_line(error)}", paths=paths)]
    checks = (
        partial(_steps, config),
        partial(_leaves, config, fewest),
        partial(_leaves, config, most),
        partial(_decisions, config, fewest),
    )
    for check in checks:
        wrong = next(filter(None, map(check, specs)), None)
        if wrong is not None:
            return [*problems, wrong]
    problems += [*_baseline(config, specs), *_granularities(config, specs)]
    return [*problems, *_coupling(config), *_weights(config)]


def _tail(tree: Any) -> "Tail":
    """How the settings say that tails are walked."""
    from treerl.engine.tree_spec import Tail  # the engine, which is slow to import

    return Tail(tree.tail_stride, tree.tail_order, tree.granularities)


def _keeping(config: Config) -> Iterator[Problem]:
    """The best checkpoint is known where the held-out reward is measured."""
    if config.train.keep_best and not config.evaluate.every:
        message = "expected evaluate.every >= 1 with keep_best, as the held-out reward tells, got 0"
        yield Problem(message, paths=("train.keep_best", "evaluate.every"))


def _steps(config: Config, spec: "TreeSpec") -> Problem | None:
    """The last step has no density, so it cannot be sampled."""
    paths = ("tree.branching", "env.steps")
    if spec.steps != config.env.steps:
        message = f"expected trees of env.steps = {config.env.steps} steps, got {spec.steps}"
        return Problem(message, paths=paths)
    if spec.stochastic[-1]:
        return Problem("expected a deterministic last step, which has no density", paths=paths)
    return None


def _leaves(config: Config, trees: int, spec: "TreeSpec") -> Problem | None:
    """A group needs two leaves to compare, and no more than was allowed."""
    tree = config.tree
    leaves = trees * spec.leaves
    if leaves > tree.max_leaves:
        message = f"expected at most {tree.max_leaves} leaves a prompt, got {shorten(leaves)}"
        return Problem(message, paths=(*_TREES, "tree.max_leaves"))
    if leaves == 1:
        message = "expected at least 2 leaves a prompt, as a group of one has no advantage, got 1"
        return Problem(message, paths=_TREES)
    total = trees * spec.finished * config.train.prompts_per_iteration
    if total > _MOST:
        message = f"expected at most {_MOST} samples an iteration, got {total}"
        return Problem(message, paths=(*_TREES, "train.prompts_per_iteration"))
    return None


def _decisions(config: Config, trees: int, spec: "TreeSpec") -> Problem | None:
    """An optimizer step needs a node to train, or a leaf where the loss is on leaves."""
    from treerl.engine.objective import LeafObjective  # the engine, which is slow to import

    train = config.train
    on_leaves = isinstance(config.objective.build(), LeafObjective)
    each = spec.leaves if on_leaves else train.selection.build().decisions(spec)
    count = train.prompts_per_iteration * trees * each
    if train.optimizer_steps <= count:
        return None
    trained = "leaf" if on_leaves else "trained node"
    message = (
        f"expected at most {count} optimizer steps, one for each {trained} of an iteration, "
        f"got {train.optimizer_steps}"
    )
    return Problem(message, paths=("train.optimizer_steps", "train.prompts_per_iteration", *_TREES))


def _baseline(config: Config, specs: tuple["TreeSpec", ...]) -> Iterator[Problem]:
    chains = all(max(spec.children) == 1 for spec in specs)
    if chains and not config.tree.previews and config.advantage.baseline.build().needs_siblings:
        message = "expected trees that branch, as without siblings every advantage is 0"
        yield Problem(message, paths=("advantage.baseline", "tree.branching"))


def _granularities(config: Config, specs: tuple["TreeSpec", ...]) -> Iterator[Problem]:
    """A tail begins after the last sampled step."""
    if config.tree.granularities and not any(any(spec.stochastic) for spec in specs):
        message = "expected none, as no step is sampled, after which a tail would begin"
        yield Problem(message, paths=("tree.granularities", "tree.branching"))


def _coupling(config: Config) -> Iterator[Problem]:
    """The other leaves are an unbiased baseline only if they know nothing of an edge's noise."""
    coupling = config.tree.coupling.build()
    if config.advantage.baseline.build().needs_uncorrelated and not coupling.uncorrelated:
        message = (
            "expected siblings of independent or orthogonal noise with this baseline, as the mean "
            f"of the other leaves depends on an edge's own noise, got {config.tree.coupling.name}"
        )
        yield Problem(message, paths=("tree.coupling", "advantage.baseline"))


def _weights(config: Config) -> Iterator[Problem]:
    """Other weights must be kept to be asked for, and a teacher is loaded to be asked."""
    asked = config.objective.build().weight_set
    teacher = config.train.teacher
    if (asked == "teacher") != (teacher is not None):
        wish = "a folder" if teacher is None else "null"
        why = "this objective asks for the teacher" if teacher is None else "no objective asks"
        message = f"expected {wish}, as {why}, got {shorten(teacher)}"
        yield Problem(message, paths=("train.teacher", "objective"))
    if config.train.ema > 0:
        return
    if config.train.rollout == "ema":
        message = "expected train.ema above 0, as the average grows the trees, got 0"
        yield Problem(message, paths=("train.rollout", "train.ema"))
    if asked == "ema":
        message = "expected train.ema above 0, as this objective asks for the average, got 0"
        yield Problem(message, paths=("objective", "train.ema"))


def _precision(config: Config) -> Iterator[Problem]:
    dtype = config.backbone.params.get("dtype")
    if config.train.trainable == "full" and dtype == "float16":
        message = "expected float32 or bfloat16 for full weights (gradients underflow), got float16"
        yield Problem(message, paths=("backbone.dtype", "train.trainable"))


def _quantized(config: Config) -> Iterator[Problem]:
    """Weights of few bits do not train, and are not cut."""
    how = config.backbone.params.get("quantize")
    if how is None:
        return
    if config.train.trainable == "full":
        message = f"expected null with full weights, as weights of few bits do not train, got {how}"
        yield Problem(message, paths=("backbone.quantize", "train.trainable"))
    if config.parallel.shard:
        message = f"expected null with parallel.shard, which cuts whole weights, got {how}"
        yield Problem(message, paths=("backbone.quantize", "parallel.shard"))


def _sharded(config: Config) -> Iterator[Problem]:
    """What a model in parts cannot have."""
    if not config.parallel.shard:
        return
    if config.train.teacher is not None:
        message = f"expected null with parallel.shard, got {shorten(config.train.teacher)}"
        yield Problem(message, paths=("train.teacher", "parallel.shard"))
    if config.backbone.params.get("compile") == "blocks":
        message = "expected auto or none with parallel.shard, got blocks"
        yield Problem(message, paths=("backbone.compile", "parallel.shard"))


def _watch(config: Config) -> Iterator[Problem]:
    both = [name for name in config.watch if name in config.rewards]
    if both:
        message = f"expected rewards that are not trained on, got {', '.join(both)}"
        yield Problem(message, paths=("watch", "rewards"))


def _evaluation(config: Config) -> Iterator[Problem]:
    evaluate = config.evaluate
    samples = evaluate.max_prompts * evaluate.samples_per_prompt
    if samples > _MOST:
        message = f"expected at most {_MOST} samples together, got {samples}"
        yield Problem(message, paths=("evaluate.samples_per_prompt", "evaluate.max_prompts"))
