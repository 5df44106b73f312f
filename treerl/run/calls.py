"""How often an iteration calls each phase: forwards are padded to one row count, so calls count."""

from treerl.config.schema import Config
from treerl.run.plan import Plan


def calls(config: Config, plan: Plan, tasks: int) -> dict[str, float]:
    """Expected calls of an iteration by phase, as a mean over the run; scored samples for reward.

    `tasks` are those that the run trains on: each is encoded once.
    """
    rows = config.train.micro_batch_size
    prompts = plan.prompts_per_iteration
    counts = dict.fromkeys(("encode", "rollout", "decode", "reward", "update"), 0.0)
    iterations = max(plan.iterations, 1)
    for times, spec in plan.expected(iterations):
        share = times / iterations
        trees = plan.algorithm.trees_per_prompt * prompts
        work = plan.per_prompt(spec) * prompts
        leaves = _chunks(spec.leaves * trees, rows)
        previews = round(work.decodes) - spec.finished * trees
        nodes = work.update_forwards / plan.updates
        counts["rollout"] += share * sum(_chunks(width * trees, rows) for width in spec.widths[:-1])
        counts["rollout"] += share * leaves * sum(map(len, spec.walks))
        counts["decode"] += share * (leaves * (1 + len(spec.walks)) + _chunks(previews, rows))
        counts["reward"] += share * round(work.decodes)
        counts["update"] += share * plan.updates * _chunks(nodes, rows)
    counts["encode"] = min(tasks, iterations * prompts) / iterations
    counts["optimizer step"] = plan.updates
    return counts


def evaluation_calls(config: Config, heldout: int) -> dict[str, float]:
    """Those of one evaluation of so many tasks."""
    settings = config.evaluate
    leaves = heldout * settings.samples_per_prompt
    chunks = _chunks(leaves, config.train.micro_batch_size)
    steps = settings.steps or config.env.steps
    return {"rollout": chunks * steps, "decode": chunks, "reward": leaves}


def evaluations(config: Config) -> int:
    """How often a run evaluates: before, after, and in between where it was asked to."""
    every = config.evaluate.every
    between = (config.train.iterations - 1) // every if every else 0
    return 2 + max(between, 0)


def _chunks(count: float, rows: int) -> float:
    return -(-round(count) // rows)
