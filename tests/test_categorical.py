"""A discrete process is an environment like any other: sentences of tokens, one token a step.

With all branches of every tree enumerated, the trainer's mean gradient is the policy gradient of
the enumerated sentences. The probabilities are quarters, so that four equally likely numbers stand
for a uniform draw, and a tree of E edges has 4^E equally likely outcomes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from plain import Always, Counted, PlainRewards, many, roots
from torch import Tensor

from treerl.engine import noise
from treerl.engine.algorithm import Algorithm
from treerl.engine.baseline import Baseline, LeaveSubtreeOut, Prompt
from treerl.engine.env import Env
from treerl.engine.grow import grow
from treerl.engine.normaliser import Centred
from treerl.engine.objective import Clipped
from treerl.engine.policy import Draws, Policy
from treerl.engine.step import Step
from treerl.engine.task import Samples
from treerl.engine.trainer import Trainer
from treerl.engine.tree import State
from treerl.engine.tree_spec import TreeSpec

VOCABULARY = 3
LENGTH = 2
EMPTY = -1


@dataclass(frozen=True)
class Categorical(Policy):
    """The distribution over sentences that are one token longer."""

    logits: Tensor  # [M, V]
    sentence: Tensor  # [M, T] int64, EMPTY where there is no token yet
    place: Tensor  # [M] int64, of the next token

    @property
    def mode(self) -> Tensor:
        return self._with(self.logits.argmax(1))

    def take(self, index: Tensor) -> "Categorical":
        return Categorical(self.logits[index], self.sentence[index], self.place[index])

    def sample(self, draws: Draws, dtype: torch.dtype) -> Tensor:
        cumulative = torch.softmax(self.logits, 1).cumsum(1)
        uniform = draws.uniform((1,), cumulative.dtype)
        return self._with((uniform >= cumulative[:, :-1]).sum(1)).to(dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        token = x.gather(1, self.place[:, None])
        return torch.log_softmax(self.logits, 1).gather(1, token)[:, 0]

    def kl(self, other: "Categorical") -> Tensor:
        log_prob = torch.log_softmax(self.logits, 1)
        return (log_prob.exp() * (log_prob - torch.log_softmax(other.logits, 1))).sum(1)

    def _with(self, token: Tensor) -> Tensor:
        return self.sentence.scatter(1, self.place[:, None], token[:, None])


class Tokens(Env):
    """Sentences of two tokens; every prefix has its own row of logits."""

    steps = LENGTH
    shape = (LENGTH,)
    latent_dtype = torch.int64

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits  # [1 + V, V]: of the empty prefix, and of each first token

    def initial(self, task: Tensor, noise: Tensor) -> State:
        empty = torch.full(noise.shape, EMPTY)
        return State(empty, torch.zeros_like(task), task)

    def policy(self, state: State, stochastic: bool) -> Categorical:
        prefix = torch.where(state.step == 0, 0, 1 + state.x[:, 0])
        return Categorical(self.logits[prefix], state.x, state.step)


def quarters() -> Tensor:
    """Logits of probabilities in quarters, each row moved by a constant."""
    probability = torch.tensor(
        [[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.25, 0.5, 0.25]],
        dtype=torch.float64,
    )
    return probability.log() + torch.tensor([[0.0], [1.0], [-2.0], [0.5]], dtype=torch.float64)


REWARD = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0], [0.0, 2.0, 5.0]], dtype=torch.float64)


def value(samples: Samples) -> Tensor:
    return REWARD[samples.images[:, 0], samples.images[:, 1]]


def enumerated(logits: Tensor) -> Tensor:
    """The policy gradient Σ p(s) R(s) ∇ log p(s) over all nine sentences, by autograd."""
    logits = logits.clone().requires_grad_()
    log_prob = torch.log_softmax(logits, 1)
    total = torch.zeros((), dtype=torch.float64)
    for a, b in product(range(VOCABULARY), repeat=2):
        total = total + (log_prob[0, a] + log_prob[1 + a, b]).exp() * REWARD[a, b]
    return torch.autograd.grad(total, logits)[0]


def all_outcomes(spec: TreeSpec) -> list[Tensor]:
    """For each level the draws `[4^E · edges]` of its edges, over all 4^E outcomes of a tree."""
    numbers = torch.arange(4**spec.edges)
    levels = []
    first = 0  # edge of this level; edge e of outcome n draws the e-th digit of n in base 4
    for width in spec.widths[1:]:
        digits = [numbers // 4**edge % 4 for edge in range(first, first + width)]
        levels.append((torch.stack(digits, 1).flatten() + 0.5) / 4)
        first += width
    return levels


def train_on_all_outcomes(
    spec: TreeSpec, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> tuple[Step, Tensor]:
    """One iteration over every outcome of a tree, and the gradient that it climbed."""
    levels = all_outcomes(spec)
    rows = max(len(draws) for draws in levels)
    left = iter(levels)  # one call for each level, since all of its nodes fit into one chunk

    def prescribed(
        keys: noise.Keys, shape: Sequence[int], dtype: torch.dtype, device: object = "cpu"
    ) -> Tensor:
        return next(left).to(dtype).view(len(keys), *shape)

    monkeypatch.setattr(noise, "uniform", prescribed)
    logits = quarters().requires_grad_()
    algorithm = Algorithm(
        branching=Always(spec),
        normaliser=Centred(),
        baseline=baseline,
        normalise=False,
        advantage_clip=1e9,
        objective=Clipped(0.2),
        reduction="depths",
        optimizer_steps=1,
    )
    tasks = range(4**spec.edges)
    rewards = PlainRewards({"value": value})
    train = Trainer(Tokens(logits), rewards, algorithm, Counted([logits]), rows, max_grad_norm=1e9)
    keys = np.split(noise.children(noise.key(0), len(tasks)), len(tasks))
    step = train.iterate(tasks, keys)
    # the mean over depths, of which there are two, is half of their sum
    return step, LENGTH * (logits.detach() - quarters())


@pytest.mark.parametrize("children", [(2, 2), (3, 1)], ids=str)
def test_over_all_branches_of_a_tree_of_tokens_the_mean_gradient_is_the_enumerated_one(
    children: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TreeSpec(children, (True, True))
    step, gradient = train_on_all_outcomes(spec, LeaveSubtreeOut(), monkeypatch)
    assert step.metrics["leaves"] == 4**spec.edges * spec.leaves
    assert step.metrics["ratio_deviation"] == 0 and step.tree.x.dtype == torch.int64
    exact = enumerated(quarters())
    assert float(exact.abs().max()) > 0.3
    assert torch.allclose(gradient, exact, rtol=0, atol=1e-12)


def test_the_prompts_baseline_learns_one_minus_m_over_n_of_the_enumerated_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = TreeSpec((2, 2), (True, True))
    _, gradient = train_on_all_outcomes(spec, Prompt(), monkeypatch)
    exact = enumerated(quarters())
    # two of four leaves lie below an edge of the first step, one below an edge of the second
    assert torch.allclose(gradient[0], exact[0] / 2, rtol=0, atol=1e-12)
    assert torch.allclose(gradient[1:], exact[1:] * 3 / 4, rtol=0, atol=1e-12)


def test_tokens_are_drawn_with_their_probabilities_and_replayed_exactly() -> None:
    env = Tokens(quarters()).with_tasks(range(4000))
    tree = grow(env, many(4000), TreeSpec((1, 1), (True, True)), 64)
    sentences = tree.at(tree.leaves).x
    log_prob = torch.log_softmax(quarters(), 1)
    statistic = 0.0
    for a, b in product(range(VOCABULARY), repeat=2):
        expected = 4000 * float((log_prob[0, a] + log_prob[1 + a, b]).exp())
        count = int(((sentences == torch.tensor([a, b])).all(1)).sum())
        statistic += (count - expected) ** 2 / expected
    assert statistic < 26.1  # chi² of 8 degrees at 1e-3
    policy = env.policy(tree.at(tree.parent[tree.edges]), stochastic=True)
    assert torch.equal(policy.log_prob(tree.at(tree.edges).x), tree.log_prob[tree.edges])


def test_a_deterministic_step_takes_the_likeliest_token() -> None:
    env = Tokens(quarters()).with_tasks(("a",))
    tree = grow(env, roots(1), TreeSpec((1, 1), (False, False)), 2)
    assert tree.at(tree.leaves).x.tolist() == [[1, 2]]


def test_training_on_tokens_finds_the_best_sentence() -> None:
    logits = quarters().requires_grad_()
    algorithm = Algorithm(
        branching=Always(TreeSpec((3, 3), (True, True))),
        baseline=LeaveSubtreeOut(),
        objective=Clipped(0.2),
        optimizer_steps=1,
    )
    rewards = PlainRewards({"value": value})
    train = Trainer(Tokens(logits), rewards, algorithm, Counted([logits], 0.5), 16)
    for _ in range(40):
        step = train.iterate(("a", "b", "c", "d"))
    best = torch.softmax(logits.detach(), 1)
    assert float(best[0, 2] * best[3, 2]) > 0.8 and step.metrics["reward"] > 4


def test_the_kl_of_two_categoricals_is_their_expected_log_ratio() -> None:
    place = torch.zeros(4, dtype=torch.int64)
    sentence = torch.full((4, LENGTH), EMPTY)
    policy = Categorical(quarters(), sentence, place)
    other = policy.take(torch.tensor([1, 2, 3, 0]))
    expected = torch.zeros(4, dtype=torch.float64)
    for token in range(VOCABULARY):
        x = torch.full((4, LENGTH), token)
        expected += policy.log_prob(x).exp() * (policy.log_prob(x) - other.log_prob(x))
    assert torch.allclose(policy.kl(other), expected, rtol=0, atol=1e-15)
    assert not policy.kl(policy).any()
