"""Every recipe's loss and gradient on a fixed forest are its paper's formula, written out."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from recipe_case import TASKS, Case, Computed, computed
from recipe_formulas import FORMULAS
from torch import Tensor

from treerl.config.algorithm import algorithm_of
from treerl.config.resolve import resolve
from treerl.engine import noise
from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import Geometric
from treerl.engine.coupling import siblings
from treerl.engine.kernel import DDIM, FlowSDE
from treerl.engine.objective import EdgeObjective, LeafObjective
from treerl.engine.recipes import recipes

SIZES = tuple(10.0**power for power in range(-7, 0))


def gradient(loss: Tensor, case: Case) -> Tensor:
    """d loss / d weights, in one row."""
    parts = torch.autograd.grad(loss, list(case.now.network.parameters()))
    return torch.cat([part.flatten() for part in parts])


def moved(algorithm: Algorithm) -> Iterator[Computed]:
    """The case with the network moved a little further each time."""
    for size in SIZES:
        yield computed(algorithm, size)


def tried(algorithm: Algorithm) -> Computed:
    """A case in which the clip or the mask cuts some edges, and leaves others alone."""
    if isinstance(algorithm.objective, LeafObjective):
        return computed(algorithm, 0.05)
    return next(case for case in moved(algorithm) if 0.05 < case.clipped < 0.95)


def assert_is_the_formula(algorithm: Algorithm, result: Computed) -> None:
    expected = FORMULAS[algorithm.name](result.case)
    gap = (result.loss - expected).detach().abs()
    assert float(gap) <= 1e-9 * float(1 + expected.detach().abs())
    ours = gradient(result.loss, result.case)
    theirs = gradient(expected, result.case)
    scale = float(theirs.abs().max())
    assert scale > 0 and float((ours - theirs).abs().max()) <= 1e-6 * scale


def test_every_recipe_has_its_formula() -> None:
    assert set(FORMULAS) == set(recipes)


@pytest.mark.parametrize("name", list(FORMULAS))
def test_loss_and_gradient_of_a_recipe_are_its_papers_formula(name: str) -> None:
    algorithm = recipes[name]
    assert_is_the_formula(algorithm, tried(algorithm))


@pytest.mark.parametrize("name", [name for name in FORMULAS if name not in ("nft", "awm")])
def test_before_the_first_step_every_ratio_is_one_and_nothing_is_cut(name: str) -> None:
    algorithm = recipes[name]
    result = computed(algorithm, 0.0)
    assert isinstance(algorithm.objective, EdgeObjective) and result.clipped == 0
    assert_is_the_formula(algorithm, result)


@pytest.mark.parametrize("name", ["nft", "awm"])
def test_losses_on_leaves_take_them_from_trees_as_well_as_from_chains(name: str) -> None:
    chains = recipes[name]
    trees = replace(chains, branching=Geometric(3, 3), trees_per_prompt=1)
    result = computed(trees, 0.05)
    assert len(result.case.trained) == 27 * len(TASKS)
    assert_is_the_formula(trees, result)


def test_dancegrpo_trains_the_rounded_down_share_of_each_chain() -> None:
    case = computed(recipes["dancegrpo"], 0.0).case
    chain = case.tree.roots()[case.trained]
    per_chain = torch.bincount(chain, minlength=12 * len(TASKS))
    assert per_chain.tolist() == [int(Fraction("0.6") * 9)] * 12 * len(TASKS)


def test_pruned_branchgrpo_leaves_four_steps_from_the_last_split_on_untrained() -> None:
    case = computed(recipes["branchgrpo-pruned"], 0.0).case
    steps = torch.unique(case.tree.step[case.trained] - 1).tolist()
    assert steps == [0, 1, 2, 3, 8]  # of ten: splits at 0, 1, 3, 4, the last step is not sampled


def test_tempflow_compares_the_branches_of_one_seed_with_each_other_alone() -> None:
    case = computed(recipes["tempflow"], 0.0).case
    nodes, sizes = torch.unique(case.tree.parent[case.trained], return_counts=True)
    assert len(nodes) == 4 * len(TASKS) and sizes.tolist() == [6] * len(nodes)
    assert len(torch.unique(case.tree.roots()[nodes])) == 4 * len(TASKS)


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        ("treegrpo", {"clip_range": 1e-3, "kl": 0.0, "anchor": "start"}),
        ("tempflow", {"clip_range": 1e-3, "kl": 0.004, "anchor": "start"}),
        ("grpo-guard", {"clip_range": 2e-6, "reweight": True}),
        ("nft", {"beta": 1.0, "saturation": 5.0, "adaptive": True}),
    ],
)
def test_the_clip_range_of_a_preset_is_the_density_ratios_and_no_other(
    recipe: str, parameters: dict[str, object]
) -> None:
    assert resolve(None, {"recipe": recipe}, []).objective.params == parameters


def test_ddpo_takes_the_ddim_kernel_on_diffusion_models_and_the_flows_on_flows() -> None:
    flags: dict[str, object] = {"recipe": "ddpo", "rewards": {"jpeg": 1.0}}
    diffusion = algorithm_of(resolve(None, {**flags, "backbone.name": "sd15"}, []))
    flow = algorithm_of(resolve(None, {**flags, "backbone.name": "sd35"}, []))
    assert diffusion.kernel == DDIM(1.0) and flow.kernel == recipes["ddpo"].kernel == FlowSDE(0.7)
    assert replace(diffusion, kernel=flow.kernel) == flow


def test_branchgrpos_siblings_share_a_seventeenth_of_their_noises_variance() -> None:
    """ξ_b = (ξ₀ + s η_b) / √(1 + s²) with s = 4 correlates siblings by 1 / (1 + s²)."""
    algorithm = recipes["branchgrpo"]
    births = siblings(noise.key(0), np.array([4000]))
    z = algorithm.coupling.normal(births, (30,)).double()
    shared = z.mean(0)  # ξ₀ / √17, up to 4 / √(17 · 4000)
    assert float(shared.square().mean()) == pytest.approx(1 / 17, rel=0.7)
    assert float(z.var(0, unbiased=False).mean()) == pytest.approx(16 / 17, rel=0.01)
