"""What each recipe costs at 27 samples of ten steps, against the published counts.

Where a paper's code evaluates siblings one by one, here they share their parent's forward, in the
rollout as in the update. The last step is never sampled, which DDPO and BranchGRPO do.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from oracle import KERNELS, Neural, schedule
from plain import SUM, roots

from treerl.engine.branching import Fixed, Geometric, Shift, draw
from treerl.engine.branchings.splits import Splits
from treerl.engine.branchings.star import Star
from treerl.engine.grow import grow
from treerl.engine.recipes import recipes
from treerl.engine.selection import Share
from treerl.engine.selections.depths import Depths
from treerl.engine.trainer import Trainer
from treerl.run.plan import Counts, Plan, count
from treerl.run.run import work_of

STEPS = 10
GROUP = 27


@dataclass(frozen=True)
class Row:
    """A recipe in groups of 27, and what it costs a prompt."""

    recipe: str
    changes: dict[str, Any]
    forwards: float
    updates: float
    edges: float
    uniform: float = 0.0  # which tree is drawn


FLAT = {"trees_per_prompt": GROUP}
TABLE = (
    Row("treegrpo", {}, 202, 13, 39),
    Row("treegrpo-code", {"branching": Shift(3, 3)}, 202, 13, 39),
    Row("treerl", {"branching": Fixed(3, 3, 0)}, 40, 6, 18),
    Row("ddpo", FLAT, 270, 270 - GROUP, 270 - GROUP),
    Row("flowgrpo", FLAT, 270, 243, 243),
    Row("flowgrpo-fast", {"branching": Star(GROUP, depth=2)}, 218 - 26, 1 + GROUP, 54, uniform=0.3),
    Row("dancegrpo", FLAT, 270, 135, 135),
    Row("dancegrpo", {**FLAT, "selection": Share(1.0)}, 270, 243, 243),
    Row("mixgrpo", FLAT, 270, 108, 108),
    Row("mixgrpo", {**FLAT, "branching": Shift(1, 3)}, 270, 81, 81),
    Row("branchgrpo", {"branching": Splits(3, 3, 0.1)}, 202, 202 - GROUP, 228 - GROUP),
    Row(
        "branchgrpo-pruned",
        {"branching": Splits(3, 3, 0.1)},
        202,
        202 - GROUP - (9 + 3 * GROUP),
        228 - 5 * GROUP,
    ),
    Row("tempflow", {}, 4 * 3 + 24 * 7, 4, 24, uniform=0.3),
    Row(
        "g2rpo",
        {"branching": Star(GROUP, part=0.5)},
        3 + GROUP * (7 + 4 + 3),
        1,
        GROUP,
        uniform=0.5,
    ),
    Row("flash-grpo", FLAT, 270, GROUP, GROUP),
    Row("grpo-guard", FLAT, 270, 243, 243),
    Row("flow-dppo", FLAT, 270, 243, 243),
    Row("stepwise", FLAT, 270, 243, 243),
    Row("nft", FLAT, 270, GROUP, GROUP),
    Row("awm", FLAT, 270, GROUP, GROUP),
)
LEAVES = {"tempflow": 24}  # 4 seeds x 6 branches
# and the preview of each of ten levels; and what two more strides finish
DECODES = {"stepwise": 11 * GROUP, "g2rpo": 3 * GROUP}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.recipe}-{row.updates}")
def test_a_recipe_costs_the_published_counts(row: Row) -> None:
    algorithm = replace(recipes[row.recipe], **row.changes)
    spec = draw(algorithm.trees.distribution(STEPS, 0), row.uniform)
    leaves = LEAVES.get(row.recipe, GROUP)
    decodes = DECODES.get(row.recipe, leaves)
    compared = row.updates if algorithm.objective.weight_set else 0
    expected = Counts(row.forwards, row.updates, compared, row.edges, leaves, decodes, decodes)
    assert count(spec, algorithm) * algorithm.trees_per_prompt == expected
    env = Neural(KERNELS[0], schedule(STEPS), (1,), width=1)
    tree = grow(env, roots(1, algorithm.trees_per_prompt), spec, rows=1)
    assert (env.forwards, len(tree.leaves)) == (row.forwards, leaves)


@pytest.mark.parametrize("name", recipes)
def test_the_network_is_evaluated_as_often_as_the_plan_says(name: str) -> None:
    algorithm = recipes[name]
    plan = Plan(algorithm, STEPS, iterations=1, prompts_per_iteration=2, rewards=1, seed=0)
    env = Neural(KERNELS[0], schedule(STEPS), (1,), width=1)
    optimizer = torch.optim.AdamW(env.network.named_parameters(), lr=1e-3)
    trainer = Trainer(
        env, SUM, algorithm, optimizer, 1, weight_sets={"start": nullcontext}, iterations=1
    )
    step = trainer.iterate([0, 1])
    work = plan.drawn_in(0)
    # a share of the steps is drawn anew for each tree, and rounded there
    assert env.forwards == work_of(step).forwards == pytest.approx(work.forwards, abs=0.5)
    assert work_of(step).reference_forwards == pytest.approx(work.reference_forwards, abs=0.5)


COMPARING = {"flowgrpo", "tempflow", "nft", "awm"}  # with the start, or with who grew the trees


def test_the_recipes_that_compare_themselves_with_other_weights_pay_for_it() -> None:
    asking = {name for name, algorithm in recipes.items() if algorithm.objective.weight_set}
    assert asking == COMPARING


def test_every_recipe_is_counted() -> None:
    assert {row.recipe for row in TABLE} == set(recipes)


def test_losses_on_leaves_cost_their_leaves_whatever_grew_them() -> None:
    algorithm = replace(recipes["nft"], branching=Geometric(3, 3), trees_per_prompt=1)
    spec = algorithm.branching.distribution(STEPS, 0)[0][1]
    assert count(spec, algorithm) * algorithm.trees_per_prompt == Counts(
        202, GROUP, GROUP, GROUP, GROUP, GROUP, GROUP
    )


def test_branchgrpo_as_published_has_the_nodes_and_edges_of_its_paper() -> None:
    (published,) = recipes["branchgrpo"].branching.support(20)
    splits = [step for step, children in enumerate(published.children) if children > 1]
    assert splits == [0, 3, 6, 9] and published.leaves == 16
    assert (published.forwards, sum(published.widths)) == (203, 219)
    assert published.edges == 218 - 16  # its last step is deterministic here
    # 8.625 a leaf, the paper's count under pruning by depth: (218 - 16 - 4 * 16) / 16
    assert Depths(4).edges(published) / 16 == 8.625


@pytest.mark.parametrize("split", range(9))
def test_one_branching_step_costs_a_shared_trunk_and_a_tail_for_each_branch(split: int) -> None:
    algorithm = recipes["tempflow"]
    spec = draw(algorithm.branching.distribution(STEPS, 0), (split + 0.5) / 9)
    assert spec.start == split
    counted = count(spec, algorithm) * algorithm.trees_per_prompt
    assert counted.sampling_forwards == 4 * (split + 1) + 24 * (STEPS - split - 1)
    assert (counted.edges, counted.leaves) == (24, 24)
