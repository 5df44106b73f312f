"""A weighting may weigh by depth: what it reads of siblings is right at every level."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from forests import complete, on_leaves, ragged, scores
from plain import Always, path
from small_runs import TASKS, algorithm, trainer
from torch import Tensor

from treerl.engine.tree_spec import TreeSpec
from treerl.engine.weighting import Siblings, Weighting, back_up


@dataclass(frozen=True)
class Recording(Weighting):
    """Uniform, and what it was asked to weigh."""

    met: list[Siblings] = field(init=False, compare=False, default_factory=list)

    def __call__(self, siblings: Siblings) -> Tensor:
        self.met.append(siblings)
        return torch.full_like(siblings.value, 1 / siblings.value.shape[1])


@dataclass(frozen=True)
class SharperWithDepth(Weighting):
    """The mean of siblings near the root, nearly the best of them near the leaves."""

    temperatures: tuple[float, ...]  # of depth 1, 2, ...

    def __call__(self, siblings: Siblings) -> Tensor:
        return torch.softmax(siblings.value / self.temperatures[siblings.depth - 1], 1)


def test_siblings_know_their_step_depth_steps_and_iteration_at_every_level() -> None:
    # sampled steps 1, 2, 4 of 6, which split 3, 2 and 2 ways; step 3 and the others do not sample
    spec = TreeSpec((1, 3, 2, 1, 2, 1), (False, True, True, False, True, False))
    weighting = Recording()
    train, _ = trainer(replace(algorithm(), branching=Always(spec), weighting=weighting))
    train.iteration = 5
    step = train.iterate(TASKS)
    by_step = {siblings.step: siblings for siblings in weighting.met}
    assert sorted(by_step) == [1, 2, 4] and len(weighting.met) == 3
    assert [by_step[k].depth for k in (1, 2, 4)] == [1, 2, 3]
    for k, siblings in by_step.items():
        assert (siblings.steps, siblings.iteration, siblings.dims) == (6, 5, 1)
        level = step.tree.level(k + 1)
        shape = (-1, spec.children[k])
        assert torch.equal(siblings.log_prob, step.tree.log_prob[level].view(shape))
        assert torch.equal(siblings.value, step.advantages.values[level].view(shape))


@pytest.mark.parametrize("seed", range(4))
def test_siblings_of_ragged_trees_are_weighed_at_their_own_depth(seed: int) -> None:
    tree = ragged(seed)
    weighting = Recording()
    back_up(tree, on_leaves(tree, scores(tree, seed)), weighting, iteration=3)
    for siblings in weighting.met:
        matches = []
        for row in siblings.log_prob:
            nodes = torch.isin(tree.log_prob, row).nonzero().flatten().tolist()
            matches += nodes
            for node in nodes:
                above = [bool(tree.stochastic[other]) for other in path(tree, node)]
                assert siblings.depth == sum(above)
                assert siblings.step == int(tree.step[node]) - 1
        assert len(matches) == siblings.log_prob.numel() and siblings.iteration == 3


def test_a_weighting_by_depth_gives_the_value_that_its_formula_gives() -> None:
    tree = complete(1, 2, 2)  # nodes 0 | 1 2 | 3 4 5 6
    leaf = torch.tensor([1.0, 2.0, 0.0, 4.0], dtype=torch.float64)
    values = back_up(tree, on_leaves(tree, leaf), SharperWithDepth((2.0, 0.5))).values

    def mean(pair: Tensor, temperature: float) -> Tensor:
        odds = (pair / temperature).exp()
        return (odds * pair).sum() / odds.sum()

    inner = torch.stack([mean(leaf[:2], 0.5), mean(leaf[2:], 0.5)])
    assert torch.allclose(values[1:3], inner, rtol=0, atol=1e-12)
    assert float(values[0]) == pytest.approx(float(mean(inner, 2.0)), abs=1e-12)
