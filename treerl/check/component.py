"""Whether the parts of an algorithm do what their contracts say, on a small world."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from treerl.check import coupling, normaliser
from treerl.check.finding import Skip, check
from treerl.check.world import BINARY, DIMENSIONS, RAGGED, STEPS, Forest, World, forest
from treerl.engine.advantage import advantages
from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import Baseline
from treerl.engine.branching import Branching
from treerl.engine.component import Component
from treerl.engine.kernel import Kernel
from treerl.engine.losses import EdgeLosses, LeafLosses
from treerl.engine.minibatch import Minibatch
from treerl.engine.normaliser import Standardised
from treerl.engine.objective import EdgeObjective, Objective
from treerl.engine.schedule import Flow
from treerl.engine.selection import Selection
from treerl.engine.weighting import Siblings, Uniform, Weighting, back_up

Result = tuple[bool, str]
_ITERATIONS = 200


@check("implement state() and restore() together; they are what a checkpoint keeps")
def state(component: Component) -> Result:
    """What state() returns are tensors, and restore() takes them up again."""
    kept = component.state()
    wrong = [name for name, value in kept.items() if not isinstance(value, Tensor)]
    component.restore(kept)
    again = component.state()
    same = all(torch.equal(kept[name], again[name]) for name in kept if name not in wrong)
    return not wrong and same and set(kept) == set(again), f"{len(kept)} tensors"


@check("probabilities are those of one draw: not negative, and together 1")
def probabilities(branching: Branching) -> Result:
    """The probabilities of every iteration's trees sum to 1."""
    totals = []
    for iteration in range(0, _ITERATIONS, 7):
        chances = [chance for chance, _ in branching.distribution(STEPS, iteration)]
        totals.append(sum(chances) if min(chances) >= 0 else float("nan"))
    worst = max(abs(total - 1) for total in totals)
    return worst < 1e-9, f"largest deviation {worst:.1e}"


@check("a tree spec has one entry for each of the `steps` that distribution() is given")
def length(branching: Branching) -> Result:
    """Every tree has as many steps as it was asked for, the last of them deterministic."""
    specs = branching.support(STEPS)
    lengths = {spec.steps for spec in specs}
    sampled_last = any(spec.stochastic[-1] for spec in specs)
    unsampled = [spec for spec in specs if not any(spec.stochastic)]
    # one kind of tree without a sampled step is right for losses on leaves; a mixture is a slip
    mixed = 0 < len(unsampled) < len(specs)
    text = f"steps {sorted(lengths)}, last step sampled: {sampled_last}, some unsampled: {mixed}"
    return lengths == {STEPS} and not sampled_last and not mixed, text


@check("override support(steps): list every tree that any iteration may grow")
def support(branching: Branching) -> Result:
    """The support lists every tree that some iteration may grow."""
    listed = set(branching.support(STEPS))
    missing = set()
    for iteration in range(_ITERATIONS):
        drawn = {spec for chance, spec in branching.distribution(STEPS, iteration) if chance > 0}
        missing |= drawn - listed
    return not missing, f"{len(listed)} listed, {len(missing)} grown but not listed"


@check("compute every factor from the schedule; a sampled step needs a std above 0")
def coefficients(kernel: Kernel) -> Result:
    """The three numbers of every step are finite, float64 and sound."""
    table = kernel.coefficients(Flow.linear(STEPS))
    columns = (table.state, table.prediction, table.std)
    shapes = {tuple(column.shape) for column in columns}
    finite = all(bool(torch.isfinite(column).all()) for column in columns)
    double = all(column.dtype == torch.float64 for column in columns)
    positive = bool((table.std >= 0).all())
    text = f"shapes {sorted(shapes)}, float64: {double}, stds {_span(table.std)}"
    return shapes == {(STEPS,)} and finite and double and positive, text


@check("the mean must carry the sample to the next level: look at state and prediction factors")
def signal(kernel: Kernel) -> Result:
    """Of a latent without noise, x = (1-σ) x₀, the mean of a step is (1-σ') x₀."""
    schedule = Flow.linear(STEPS)
    table = kernel.coefficients(schedule)
    now = schedule.signal[:-1]
    after = schedule.signal[1:]
    gap = float((table.state * now - table.prediction - after)[:-1].abs().max())  # v = -x₀
    return gap < 1e-6, f"largest difference {gap:.1e}"


@check("return [P, k] weights >= 0 that sum to 1 over the last dimension, for any k")
def weights(weighting: Weighting) -> Result:
    """The weights of families of any size are non-negative and sum to 1."""
    for spec in (BINARY, RAGGED):
        grown = forest(spec)
        back_up(grown.tree, _values(grown), weighting)
    return True, "families of 2 and 3"


@check("compare siblings with siblings only, and by nothing but what Siblings holds")
def permutation(weighting: Weighting) -> Result:
    """Permuting siblings permutes their weights."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    log_prob = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1])

    def weigh(index: Tensor) -> Tensor:
        siblings = Siblings(value[:, index], log_prob[:, index], DIMENSIONS, 1, STEPS, 1, 0)
        return weighting(siblings)

    gap = float((weigh(order) - weigh(torch.arange(4))[:, order]).abs().max())
    return gap < 1e-9, f"largest difference {gap:.1e}"


@check("return Reference(centre, scale), each [N] float64 and finite")
def reference(baseline: Baseline) -> Result:
    """Advantages are finite, and exactly 0 where a task's leaves all score the same."""
    grown = forest(RAGGED, flat=True)
    tree = grown.tree
    scores = Standardised()(tree, grown.scores, grown.weights)
    credit = advantages(tree, scores, Uniform(), baseline, grown.env.tasks)
    flat = credit.advantage[tree.task == 0]
    return bool((flat == 0).all()), f"advantages {_span(credit.advantage)}"


@check("return [N] bool, true only where tree.stochastic is, and somewhere")
def selected(selection: Selection) -> Result:
    """Only sampled edges are selected, at least one, and no more than the plan expects."""
    grown = forest()
    tree = grown.tree
    advantage = torch.linspace(-1, 1, len(tree), dtype=torch.float64)
    chosen = selection(tree, advantage, np.random.default_rng(0))
    if chosen.dtype != torch.bool or tuple(chosen.shape) != (len(tree),):
        return False, f"{chosen.dtype} of shape {tuple(chosen.shape)}"
    nodes = len(torch.unique(tree.parent[chosen.nonzero().flatten()]))
    planned = selection.decisions(BINARY) * tree.sizes[0]
    outside = int((chosen & ~tree.stochastic).sum())
    text = f"{int(chosen.sum())} edges of {nodes} nodes, {planned} planned, {outside} not sampled"
    return outside == 0 and 0 < nodes <= planned, text


@check("build the loss from policy.log_prob(edges.x) or policy.mean: something is detached")
def slope(objective: Objective) -> Result:
    """The loss is finite, one number for each edge or leaf, and its gradient moves the policy."""
    losses, batch = _losses(objective, torch.ones)
    loss = losses.loss(batch)
    loss.value.sum().backward()  # type: ignore[no-untyped-call]
    gradient = losses.env.weight.grad  # type: ignore[attr-defined]
    good = gradient is not None and bool(torch.isfinite(gradient).all() and gradient.any())
    shape = tuple(loss.value.shape) == (len(batch.children),)
    finite = bool(torch.isfinite(loss.value).all())
    return good and shape and finite, f"losses {_span(loss.value.detach())}"


@check("mind the sign: losses are minimised, and a positive advantage is to become more likely")
def direction(objective: Objective) -> Result:
    """A step against the gradient makes edges of positive advantage more likely."""
    if not isinstance(objective, EdgeObjective):
        raise Skip("a loss on leaves has no density to look at")
    losses, batch = _losses(objective, torch.ones)
    env = losses.env
    assert isinstance(env, World)
    before = _log_prob(losses, batch)
    losses.loss(batch).value.sum().backward()  # type: ignore[no-untyped-call]
    assert env.weight.grad is not None
    with torch.no_grad():
        env.weight -= 1e-3 * env.weight.grad / env.weight.grad.norm()
    change = float((_log_prob(losses, batch) - before).sum())
    return change > 0, f"change of the log-probability {change:.2g}"


COMPONENTS = {
    "branchings": (probabilities, length, support, state),
    "kernels": (coefficients, signal),
    "couplings": (coupling.exact, coupling.repeatable, state),
    "weightings": (weights, permutation, state),
    "baselines": (reference, state),
    "normalisers": (normaliser.normalised, normaliser.monotone, normaliser.units, state),
    "selections": (selected, state),
    "objectives": (slope, direction, state),
}


def _losses(
    objective: Objective, advantage: Callable[..., Tensor]
) -> tuple[EdgeLosses | LeafLosses, Minibatch]:
    grown = forest()
    algorithm = Algorithm(objective=objective, optimizer_steps=1)
    kind = EdgeLosses if isinstance(objective, EdgeObjective) else LeafLosses
    values = advantage(len(grown.tree), dtype=torch.float64)
    losses = kind(grown.env, grown.tree, values, algorithm, 64, lambda _: torch.no_grad())
    generator = np.random.default_rng(0)
    ((batch,),) = losses.batches(losses.trained(generator), generator)
    return losses, batch


def _log_prob(losses: EdgeLosses | LeafLosses, batch: Minibatch) -> Tensor:
    with torch.no_grad():
        policy = losses.env.policy(losses.tree.at(batch.parents), stochastic=True)
        return policy.take(batch.owner).log_prob(losses.tree.at(batch.children).x)


def _values(grown: Forest) -> Tensor:
    return Standardised()(grown.tree, grown.scores, grown.weights).values


def _span(values: Tensor) -> str:
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"
