"""Whether an environment of the shelf does what its contract says, on a miniature backbone."""

from collections.abc import Iterator

import torch

from treerl.backbone.env import BackboneEnv
from treerl.check.finding import Finding, check, run
from treerl.config.schema import Config
from treerl.engine import noise
from treerl.engine.branching import window
from treerl.engine.grow import grow
from treerl.engine.roots import make_roots
from treerl.engine.task import Task
from treerl.engine.tree import Tree
from treerl.run.assemble import make_env

TASKS = (Task("a cat"), Task("a red bird above a snowy mountain, oil painting"))
ROWS = 3


@check("return states at step 0 with x of the environment's shape", vital=True)
def initial(env: BackboneEnv) -> tuple[bool, str]:
    """The first state of M rows is `[M, *shape]` at step 0, and finite."""
    draws = noise.normal(noise.children(noise.key(0), 2), env.shape, torch.float32, env.device)
    state = env.initial(torch.tensor([0, 1], device=env.device), draws)
    shape = tuple(state.x.shape)
    good = shape == (2, *env.shape) and bool((state.step == 0).all())
    return good and bool(torch.isfinite(state.x).all()), f"shape {shape}"


@check("return one distribution a row, with a density where the step is stochastic", vital=True)
def grows(env: BackboneEnv) -> tuple[bool, str]:
    """A tree grows to its leaves, all of them finite."""
    tree = _tree(env)
    leaves = tree.at(tree.leaves).x
    return bool(torch.isfinite(leaves).all()), f"{len(tree)} nodes, {len(leaves)} leaves"


@check("keep nothing between two calls: the policy is a function of the state and the tasks")
def replay(env: BackboneEnv) -> tuple[bool, str]:
    """The log-probability of every edge is the same when it is asked again."""
    tree = _tree(env)
    gaps = []
    with torch.no_grad():
        for part in torch.split(tree.edges, ROWS):
            fill = part[:1].expand(ROWS - len(part))
            edges = torch.cat([part, fill])
            policy = env.policy(tree.at(tree.parent[edges]), stochastic=True)
            again = policy.log_prob(tree.at(edges).x.to(env.device)).double().cpu()
            before = tree.log_prob[edges]
            gaps.append(float(((again - before).abs() / before.abs().clamp(min=1)).max()))
    # not 0: a row stands in another place of its batch, and some processors round there differently
    return max(gaps) <= 1e-6, f"largest relative difference {max(gaps):.1e}"


@check("return Samples of the tasks in the order of the states, on the CPU")
def samples(env: BackboneEnv) -> tuple[bool, str]:
    """Samples are finite, in [0, 1], and belong to their states' tasks."""
    tree = _tree(env)
    state = tree.at(tree.leaves)
    drawn = env.samples(state)
    tasks = tuple(env.tasks[row] for row in state.task.tolist())
    inside = bool(((drawn.images >= 0) & (drawn.images <= 1)).all())
    return inside and drawn.tasks == tasks, f"shape {tuple(drawn.images.shape)}"


CHECKS = (initial, grows, replay, samples)


def findings(config: Config) -> Iterator[Finding]:
    """What the kit says of the environment that a configuration names."""
    yield from run(CHECKS, make_env(config).with_tasks(TASKS))


def _tree(env: BackboneEnv) -> Tree:
    keys = [noise.key(0, row) for row in range(len(TASKS))]
    depth = min(2, env.steps - 1)
    return grow(env, make_roots(keys, 1), window(env.steps, 0, depth, 2), ROWS)
