"""Other weights by name: the moving average, those that grew the trees, or any others."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from ended_runs import SETTINGS, run
from oracle import Neural, schedule
from plain import SUM
from safetensors.torch import load_file
from test_resume import inside as inside
from torch import Tensor

from treerl.config.resolve import resolve
from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import Fixed
from treerl.engine.kernel import FlowSDE
from treerl.engine.objective import Clipped, EdgeObjective, Edges, Loss
from treerl.engine.policy import Gaussian, Policy
from treerl.engine.trainer import Trainer
from treerl.errors import InputError
from treerl.run.assemble import build

PLAIN = Algorithm(branching=Fixed(2, 2, 0), objective=Clipped(0.1))


def trainer(algorithm: Algorithm, lr: float = 1e-2) -> tuple[Trainer, Neural]:
    env = Neural(FlowSDE(0.7), schedule(6, 3), dtype=torch.float64)
    optimizer = torch.optim.AdamW(env.network.named_parameters(), lr=lr)
    return Trainer(env, SUM, algorithm, optimizer, micro_batch_size=8), env


def weights(env: Neural) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in env.network.parameters()]


@dataclass(frozen=True)
class Asks(EdgeObjective):
    """The clipped loss, keeping how far the policy is from the weights of a name."""

    name: str = "old"
    gaps: list[float] = field(init=False, default_factory=list)

    @property
    def weight_set(self) -> str:
        return self.name

    def __call__(self, policy: Policy, edges: Edges) -> Loss:
        assert isinstance(policy, Gaussian) and isinstance(edges.reference, Gaussian)
        self.gaps.append(float((policy.mean - edges.reference.mean).detach().abs().max()))
        return Clipped(0.1)(policy, edges)


def test_the_average_is_the_recursion_written_out() -> None:
    train, env = trainer(replace(PLAIN, ema=0.3))
    expected = weights(env)
    for iteration in range(6):
        train.iterate([0, 1])
        kept = min(0.3, (1 + iteration) / (10 + iteration))
        pairs = zip(expected, weights(env), strict=True)
        expected = [kept * average + (1 - kept) * now for average, now in pairs]
    policy = weights(env)
    with train.averaged():
        for average, now in zip(expected, weights(env), strict=True):
            torch.testing.assert_close(now, average, rtol=1e-12, atol=1e-14)
    assert all(torch.equal(a, b) for a, b in zip(policy, weights(env), strict=True))
    assert not torch.equal(policy[0], expected[0])


def test_the_old_weights_are_those_that_grew_the_trees() -> None:
    objective = Asks("old")
    train, _ = trainer(replace(PLAIN, objective=objective, optimizer_steps=2))
    for _ in range(2):
        objective.gaps.clear()
        train.iterate([0, 1])
        assert objective.gaps[0] == 0 and objective.gaps[-1] > 0


def test_the_average_grows_the_trees_where_it_is_asked_to() -> None:
    """So the first step's ratios are not 1, but those of the average's own replay are."""
    objective = Asks("old")
    train, _ = trainer(replace(PLAIN, objective=objective, ema=0.9, rollout="ema"))
    train.iterate([0, 1])
    objective.gaps.clear()
    step = train.iterate([0, 1])
    assert step.metrics["ratio_deviation"] > 1e-6
    assert objective.gaps[0] > 0
    tree = step.tree
    nodes = tree.edges
    again, _ = trainer(replace(PLAIN, ema=0.9))
    again.iterate([0, 1])
    grown = again.env.with_tasks([0, 1])
    with again.averaged(), torch.no_grad():
        policy = grown.policy(tree.at(tree.parent[nodes]), stochastic=True)
        scored = policy.log_prob(tree.at(nodes).x).double()
        torch.testing.assert_close(scored, tree.log_prob[nodes])


def test_any_weights_that_a_trainer_is_given_can_be_asked_for_by_name() -> None:
    objective = Asks("teacher")
    train, env = trainer(replace(PLAIN, objective=objective))

    @contextmanager
    def teacher() -> Iterator[None]:
        before = weights(env)
        with torch.no_grad():
            for parameter in env.network.parameters():
                parameter.data.mul_(1.5)
        try:
            yield
        finally:
            for parameter, tensor in zip(env.network.parameters(), before, strict=True):
                parameter.data.copy_(tensor)

    with pytest.raises(InputError, match="asks for the weights 'teacher', got old"):
        train.iterate([0])
    train.weight_sets = {"teacher": teacher}
    train.iterate([0])
    assert objective.gaps[0] > 1e-3


@pytest.mark.parametrize("algorithm", [replace(PLAIN, ema=0.7), PLAIN], ids=["ema", "plain"])
def test_a_run_taken_up_again_has_the_same_average(algorithm: Algorithm) -> None:
    whole, env = trainer(algorithm)
    for _ in range(2):
        whole.iterate([0, 1])
    kept = {name: tensor.clone() for name, tensor in whole.state().items()}
    again, other = trainer(algorithm)
    again.restore(kept)
    for train in (whole, again):
        train.iterate([0, 1])
    with whole.averaged(), again.averaged():
        pairs = zip(env.network.parameters(), other.network.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_state_without_the_average_is_refused() -> None:
    plain, _ = trainer(PLAIN)
    averaged, _ = trainer(replace(PLAIN, ema=0.7))
    with pytest.raises(ValueError, match="expected an average of the weights"):
        averaged.restore(plain.state())


def test_an_average_that_nobody_keeps_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(InputError, match=r"train\.rollout.*expected train.ema above 0"):
        resolve(None, {}, ["train.rollout=ema"])
    resolve(None, {}, ["train.rollout=ema", "train.ema=0.9"])
    with pytest.raises(InputError, match="rollout: expected ema above 0"):
        trainer(replace(PLAIN, rollout="ema"))


def test_a_session_judges_and_saves_the_average(inside: None) -> None:
    def ended(ema: float) -> tuple[float, Tensor]:
        session = build(
            resolve(None, SETTINGS, [f"train.ema={ema}", "train.learning_rate=0.01"], True)
        )
        for _ in session.train(2):
            pass
        session.save(Path(f"saved-{ema}"))
        fresh = build(resolve(None, SETTINGS, [f"backbone.adapter=saved-{ema}"], True))
        total = fresh.evaluate().total
        torch.testing.assert_close(session.evaluate().total, total)
        return float(total.mean()), total

    assert not torch.equal(ended(0.0)[1], ended(0.9)[1])


def test_a_checkpoint_keeps_the_policy_and_its_average_under_their_own_names(inside: None) -> None:
    run(Path("run"), "train.ema=0.9", "train.learning_rate=0.01", "train.iterations=1")
    file = Path("run/checkpoints/iteration-000001/training/tensors.safetensors")
    kept = load_file(file)
    sets = ["train.ema=0.9", "train.learning_rate=0.01"]
    session = build(resolve(None, SETTINGS, sets, True))
    for _ in session.train(1):
        pass
    state = session.trainer.state()
    averages = [name for name in state if name.startswith("average/")]
    assert averages
    for name in averages:
        policy = name.replace("average/", "weights/")
        assert torch.equal(kept[name], state[name]) and torch.equal(kept[policy], state[policy])
    assert any(not torch.equal(kept[n], kept[n.replace("average/", "weights/")]) for n in averages)
