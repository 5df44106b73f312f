"""Randomness: a tree is a function of (seed, iteration, prompt) whatever else is grown with it."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from oracle import KERNELS, Linear, Neural, World, schedule
from torch import Tensor

from treerl.engine import noise
from treerl.engine.branching import window
from treerl.engine.grow import grow
from treerl.engine.noise import Stream
from treerl.engine.roots import Roots, make_roots
from treerl.engine.tree import Tree
from treerl.engine.tree_spec import TreeSpec

SPEC = window(6, 1, 3, 2)
PROMPTS = (3, 0, 5, 1, 4)  # rows of the prompt file


def keys(prompts: Sequence[int], iteration: int = 2, seed: int = 11) -> list[noise.Keys]:
    return [noise.key(seed, Stream.ROLLOUT, iteration, row) for row in prompts]


def neural(latent_dtype: torch.dtype, dtype: torch.dtype, prompts: Sequence[int]) -> Neural:
    env = Neural(KERNELS[0], schedule(6, 3), latent_dtype=latent_dtype, dtype=dtype)
    env.content = torch.tensor(prompts)
    return env


def linear(prompts: Sequence[int]) -> Linear:
    theta = torch.sin(torch.arange(36, dtype=torch.float64)).view(6, 6)
    return Linear(KERNELS[0], schedule(6, 3), theta[torch.tensor(prompts)], shape=(3,))


def of(tree: Tree, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Everything random about the trees of one prompt row."""
    mine = (tree.task == row).nonzero().flatten()
    kept = mine[tree.slot[mine] != Tree.DROPPED]
    return tree.at(kept).x, tree.log_prob[mine].nan_to_num(), tree.key[mine], tree.step[mine]


def gap(first: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> float:
    pairs = zip(first, other, strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def forest(env: World, prompts: Sequence[int], rows: int, trees: int = 2) -> Tree:
    return grow(env, make_roots(keys(prompts), trees), SPEC, rows)


@pytest.mark.parametrize("order", [(3,), (3, 0), (0, 3), (4, 1, 5, 0, 3), PROMPTS], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 8, 64])
def test_in_float64_a_tree_depends_neither_on_rows_nor_on_other_prompts(
    order: tuple[int, ...], rows: int
) -> None:
    whole = forest(linear(PROMPTS), PROMPTS, 8)
    part = forest(linear(order), order, rows)
    for row, prompt in enumerate(order):
        for alone, among in zip(of(part, row), of(whole, PROMPTS.index(prompt)), strict=True):
            assert torch.equal(alone, among)


@pytest.mark.parametrize("order", [(3,), (0, 3), (4, 1, 5, 0, 3)], ids=str)
@pytest.mark.parametrize("latent_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_with_a_network_at_fixed_rows_a_tree_is_bit_equal(
    order: tuple[int, ...], latent_dtype: torch.dtype
) -> None:
    whole = forest(neural(latent_dtype, torch.float32, PROMPTS), PROMPTS, 16)
    part = forest(neural(latent_dtype, torch.float32, order), order, 16)
    for row, prompt in enumerate(order):
        for alone, among in zip(of(part, row), of(whole, PROMPTS.index(prompt)), strict=True):
            assert torch.equal(alone, among)


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 24])
def test_with_a_network_at_other_rows_a_tree_moves_by_rounding_alone(rows: int) -> None:
    whole = forest(neural(torch.float32, torch.float32, PROMPTS), PROMPTS, 16)
    other = forest(neural(torch.float32, torch.float32, PROMPTS), PROMPTS, rows)
    for row in range(len(PROMPTS)):
        assert (
            gap(of(whole, row), of(other, row)) <= 2e-6
        )  # log-probs are near 1, where a rounding step is 1.2e-7


def test_a_tree_is_another_one_in_another_iteration_under_another_seed_and_for_another_root() -> (
    None
):
    def first(key: noise.Keys) -> Tensor:
        return grow(linear([3]), make_roots([key], 2), SPEC, 8).x

    latents = [first(keys([3], iteration, seed)[0]) for iteration in (0, 1) for seed in (0, 1)]
    for index, latent in enumerate(latents):
        assert not torch.isclose(latent[0], latent[1]).any()
        for other in latents[:index]:
            assert not torch.isclose(latent, other).any()


def test_no_two_nodes_share_their_noise() -> None:
    spec = TreeSpec((3, 2, 2, 1, 1, 1), (True,) * 5 + (False,))
    tree = grow(linear(PROMPTS), make_roots(keys(PROMPTS), 2), spec, 8)
    assert len(torch.unique(tree.key)) == len(tree)
    drawn = grow(linear([0] * 5), make_roots(keys(PROMPTS), 2), spec, 8)
    nodes, env = drawn.edges, linear([0] * 5)
    policy = env.policy(drawn.at(drawn.parent[nodes]), stochastic=True)
    normal = (drawn.at(nodes).x - policy.mean) / policy.std.view(-1, 1)
    start = drawn.at(torch.arange(10)).x
    everything = torch.cat([normal, start]).round(decimals=9)
    assert len(torch.unique(everything, dim=0)) == len(everything)
    # and they are standard normal draws, not copies of each other on a scale
    assert abs(float(everything.mean())) < 0.15 and abs(float(everything.std()) - 1) < 0.12


def test_shared_noise_gives_a_prompt_one_start_and_its_trees_their_own_branches() -> None:
    spec = TreeSpec((1,) * 6, (True,) * 5 + (False,))
    tree = grow(linear([0, 1]), make_roots(keys([0, 1]), 3, shared_noise=True), spec, 8)
    start, after = tree.at(torch.arange(6)).x, tree.at(torch.arange(6, 12)).x
    assert torch.equal(start[0], start[1]) and torch.equal(start[0], start[2])
    assert not torch.isclose(start[0], start[3]).any()
    assert len(torch.unique(after, dim=0)) == 6


def test_without_shared_noise_every_tree_starts_somewhere_else() -> None:
    tree = grow(linear([0, 1]), make_roots(keys([0, 1]), 3), window(6, 0, 1, 2), 8)
    assert len(torch.unique(tree.at(torch.arange(6)).x, dim=0)) == 6


def test_keys_of_a_million_nodes_are_all_different() -> None:
    nodes = noise.children(noise.children(noise.key(1, 2, 3), 1000), 1000)
    assert len(np.unique(nodes)) == 1_000_000
    assert noise.key(1, 2) != noise.key(2, 1) and noise.key(0) != noise.key(0, 0)


def test_a_draw_depends_on_its_key_alone() -> None:
    some = noise.children(noise.key(5), 9)
    whole = noise.normal(some, (2, 3), torch.float64)
    for row in range(9):
        assert torch.equal(noise.normal(some[row : row + 1], (2, 3), torch.float64)[0], whole[row])


def test_draws_are_standard_normal() -> None:
    drawn = noise.normal(noise.children(noise.key(6), 400), (400,), torch.float64)
    assert abs(float(drawn.mean())) < 4 / 400
    assert abs(float(drawn.var()) - 1) < 4 * 2**0.5 / 400
    across = torch.corrcoef(drawn[:40]).fill_diagonal_(0)
    assert float(across.abs().max()) < 5 / 400**0.5


def test_the_noise_of_a_released_version_does_not_change() -> None:
    # a run resumed under a later version must draw what it would have drawn
    root = noise.key(0, Stream.ROLLOUT, 7)
    assert noise.children(root, 2).tolist() == [10566882712147149637, 7875892933266472571]
    drawn = noise.normal(root, (3,), torch.float64)[0].tolist()
    assert drawn == pytest.approx([-1.67655063, 0.60218596, -3.08580041], abs=1e-6)
    # the first three outputs of splitmix64 from seed 0, as its author prints them
    printed = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(noise.key(number)[0]) for number in range(3)] == printed


def test_roots_can_be_made_by_hand() -> None:
    roots = make_roots(keys([0]), 2)
    again = Roots(roots.task, roots.key, roots.start)
    tree = grow(linear([0]), roots, SPEC, 4)
    assert torch.equal(grow(linear([0]), again, SPEC, 4).x, tree.x)


def test_uniform_draws_depend_on_their_key_alone_and_are_uniform() -> None:
    some = noise.children(noise.key(5), 4000)
    whole = noise.uniform(some, (3,), torch.float64)
    for row in range(9):
        assert torch.equal(noise.uniform(some[row : row + 1], (3,), torch.float64)[0], whole[row])
    assert float(whole.min()) >= 0 and float(whole.max()) < 1
    counts = torch.histc(whole.flatten(), 12, 0, 1)
    assert float(((counts - 1000).square() / 1000).sum()) < 32  # chi² of 11 degrees at 1e-3


def test_uniform_and_normal_draws_of_one_key_know_nothing_of_each_other() -> None:
    some = noise.children(noise.key(6), 20_000)
    uniform = noise.uniform(some, (2,), torch.float64)
    normal = noise.normal(some, (2,), torch.float64)
    both = torch.cat([uniform, normal, normal.abs()], 1)
    table = torch.corrcoef(both.T)
    assert float(table[:2, 2:].abs().max()) < 5 / 20_000**0.5


def test_a_single_number_can_be_drawn_for_each_key() -> None:
    some = noise.children(noise.key(7), 5)
    assert noise.normal(some, (), torch.float64).shape == (5,)
    assert len(torch.unique(noise.uniform(some, (), torch.float64))) == 5
