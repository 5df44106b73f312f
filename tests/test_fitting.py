"""Where memory is short, forwards get fewer rows: what is learned stays the same."""

import importlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ended_runs import run
from oracle import Neural, schedule
from plain import SUM, roots
from test_leaf_objective import AdvantageWeighted
from test_resume import inside as inside
from torch import Tensor

from treerl.engine.algorithm import Algorithm
from treerl.engine.branching import Fixed, window
from treerl.engine.fitting import fitting
from treerl.engine.grow import grow
from treerl.engine.kernel import FlowSDE
from treerl.engine.minibatch import minibatches
from treerl.engine.objective import Clipped
from treerl.engine.peers import Alone
from treerl.engine.policy import Gaussian
from treerl.engine.trainer import Trainer
from treerl.engine.tree import State
from treerl.errors import InputError
from treerl.run.reading import read

PLAIN = Algorithm(branching=Fixed(3, 2, 1), objective=Clipped(0.1), optimizer_steps=2)


class Small(Neural):
    """A flow whose forwards have so many rows at most: fewer with a gradient, as on a device."""

    most = 10**9
    most_with_gradient = 10**9

    def policy(self, state: State, stochastic: bool) -> Gaussian:
        learns = torch.is_grad_enabled()
        if len(state.x) > (self.most_with_gradient if learns else self.most):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().policy(state, stochastic)


def trainer(rows: int, algorithm: Algorithm = PLAIN) -> tuple[Trainer, Small]:
    env = Small(FlowSDE(0.7), schedule(6, 3), dtype=torch.float64)
    optimizer = torch.optim.SGD(env.network.parameters(), lr=0.1)
    return Trainer(env, SUM, algorithm, optimizer, rows), env


def weights(env: Neural) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in env.network.parameters()])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
)
def test_memory_is_short_in_the_words_of_a_device_of_python_and_of_a_cpu(error: Exception) -> None:
    train, _ = trainer(8)

    def call() -> int:
        if train.micro_batch_size > 3:
            raise error
        return train.micro_batch_size

    assert fitting(train, "rollout", call) == 2
    with pytest.raises(RuntimeError, match="shape"):
        fitting(train, "rollout", lambda: torch.zeros(2) @ torch.zeros(3, 3))


@pytest.mark.parametrize("leaves", [False, True], ids=["edges", "leaves"])
@pytest.mark.parametrize(("rollout", "update"), [(7, 99), (99, 5), (7, 2), (1, 1)])
def test_training_goes_on_with_fewer_rows_and_learns_the_same(
    rollout: int, update: int, leaves: bool
) -> None:
    algorithm = replace(PLAIN, objective=AdvantageWeighted()) if leaves else PLAIN
    plain, whole = trainer(24, algorithm)
    train, env = trainer(24, algorithm)
    env.most = rollout
    env.most_with_gradient = update
    for _ in range(2):
        expected = plain.iterate([0, 1, 2]).metrics
        metrics = train.iterate([0, 1, 2]).metrics
        assert metrics["loss"] == pytest.approx(expected["loss"], rel=1e-9)
        for name in ("edges", "update_forwards", "sampling_forwards", "leaves"):
            assert metrics[name] == expected[name]
        assert metrics["rows"] <= min(rollout, update)
    assert train.micro_batch_size * 2 >= min(rollout, update)
    torch.testing.assert_close(weights(env), weights(whole), rtol=1e-9, atol=1e-12)


def test_a_gradient_that_was_half_made_is_made_anew() -> None:
    plain, whole = trainer(8)
    train, env = trainer(8)
    forwards = 0
    real = Small.policy

    def failing(self: Small, state: State, stochastic: bool) -> Gaussian:
        nonlocal forwards
        if torch.is_grad_enabled():
            forwards += 1
            if forwards == 2:  # the first minibatch has left its gradient
                raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, state, stochastic)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Small, "policy", failing)
        train.iterate([0, 1, 2])
    plain.iterate([0, 1, 2])
    assert train.micro_batch_size == 4
    torch.testing.assert_close(weights(env), weights(whole), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rows", [2, 3, 5, 8])
def test_halves_hold_every_edge_once_under_its_own_parent(rows: int) -> None:
    env = Neural(FlowSDE(0.7), schedule(6, 3))
    tree = grow(env, roots(3), window(6, 1, 2, 3), 8)
    trained = tree.stochastic
    (batches,) = minibatches(tree, trained, 1, rows, np.random.default_rng(0))
    halves = [half for batch in batches for half in batch.halves()]
    assert {len(half.parents) for half in halves} == {-(-rows // 2)}
    children = torch.cat([half.children for half in halves])
    assert torch.equal(children.sort().values, tree.edges)
    for half in halves:
        assert torch.equal(half.parents[half.owner], tree.parent[half.children])
        assert 0 < half.real <= len(half.parents) and int(half.owner.max()) < half.real
    assert math.fsum(float(half.weight.sum()) for half in halves) == pytest.approx(
        math.fsum(float(batch.weight.sum()) for batch in batches)
    )


def test_a_row_that_does_not_fit_is_an_error_of_the_settings() -> None:
    train, env = trainer(4)
    env.most = 0
    with pytest.raises(InputError, match=r"^train.micro_batch_size: expected a rollout that fits"):
        train.iterate([0])
    assert train.micro_batch_size == 1


def test_one_of_several_processes_does_not_begin_again_alone() -> None:
    class Two(Alone):
        size = 2

        def share(self, count: int) -> range:
            return range(count)

    train, env = trainer(4)
    train.peers = Two()
    env.most = 2
    with pytest.raises(InputError, match="rows of 4"):
        train.iterate([0, 1])


def test_a_run_says_from_when_on_its_forwards_are_smaller(
    inside: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf: Any = importlib.import_module("treerl.envs.denoising")
    real = shelf.Denoising.policy

    def short(self: Any, state: State, stochastic: bool) -> Gaussian:
        if len(state.x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        policy: Gaussian = real(self, state, stochastic)
        return policy

    monkeypatch.setattr(shelf.Denoising, "policy", short)
    text = run(Path("run"))
    rows = read(Path("run")).rows
    assert [row.rows for row in rows] == [3] * 4
    assert [bool(row.alarms) for row in rows] == [True, False, False, False]
    assert "memory was short: forwards have 3 rows from here on" in " ".join(text.split())
