"""Makes finished samples a few tasks at a time, scores them, and keeps the scores alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from treerl.engine.env import Env
from treerl.engine.merge import merge
from treerl.engine.peers import Peers
from treerl.engine.scorer import Scorer
from treerl.engine.task import Samples
from treerl.engine.tree import State, Tree
from treerl.errors import RewardError

HELD = 256 * 2**20  # bytes of samples that are made at once


def portions(task: Tensor, sample_bytes: int) -> list[Tensor]:
    """Rows of whole tasks `[M]` that are scored together, as a reward may compare their samples.

    Their samples take `HELD` bytes at most, or are those of one task.
    """
    if len(task) * sample_bytes <= HELD:
        return [torch.arange(len(task))]
    parts: list[Tensor] = []
    for number in torch.unique(task).tolist():
        rows_of_task = (task == number).nonzero().flatten()
        if parts and (len(parts[-1]) + len(rows_of_task)) * sample_bytes <= HELD:
            parts[-1] = torch.cat([parts[-1], rows_of_task])
        else:
            parts.append(rows_of_task)
    return parts


def decoded(env: Env, state: State) -> Iterator[tuple[Tensor, Samples]]:
    """The samples of finished states, a portion of rows after the other.

    While one is scored the next is made, so that two are held.
    """
    rows = portions(state.task.cpu(), env.sample_bytes)
    states = [state.take(part) for part in rows]
    if len(rows) == 1:
        yield rows[0], env.samples(states[0])
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(env.samples, states[0])
        for number, part in enumerate(rows):
            samples = coming.result()
            if number + 1 < len(rows):
                coming = pool.submit(env.samples, states[number + 1])
            yield part, samples


@torch.no_grad()
def score(env: Env, tree: Tree, rewards: Scorer, peers: Peers) -> tuple[Tree, Tensor, int]:
    """The forest of all processes without trees that a reward could not score, its scores
    `[N, G, K]` (float64, NaN at nodes that were not scored), and how many trees were left out.

    The first K scores are those of the leaf, the others those of each further walk of its tail, G -
    1 of them; an inner node that is scored has one preview, which stands for all of them.
    """
    peers.phase("reward")
    walks = 1 + len(tree.granularities)
    scores = torch.full((len(tree), walks, len(rewards.names)), torch.nan, dtype=torch.float64)
    scored = torch.zeros(len(tree), dtype=torch.bool)
    wanted = [(slice(at, at + 1), tree.leaves, state) for at, state in enumerate(tree.finished())]
    if tree.previewed is not None:
        wanted.append((slice(walks), tree.previewed, tree.previews()))
    for which, nodes, state in wanted:
        scored[nodes] = True
        if len(nodes):
            for rows, samples in decoded(env, state):
                scores[nodes[rows], which] = rewards(samples)[:, None]
    tree = replace(tree, finishes=())
    peers.phase("merge")
    tree, columns = merge(tree, {"scores": scores, "scored": scored}, peers)
    scores = columns["scores"]
    bad = (columns["scored"] & torch.isnan(scores).flatten(1).any(1)).nonzero().flatten()
    if len(bad) == 0:
        return tree, scores, 0
    roots = tree.roots()
    trees = torch.unique(roots[bad])
    if len(trees) == tree.sizes[0]:
        raise RewardError(
            f"scoring.on_bad_reward: all {len(trees)} trees of the iteration have a sample "
            "without a score"
        )
    return tree.without(trees), scores[~torch.isin(roots, trees)], len(trees)
