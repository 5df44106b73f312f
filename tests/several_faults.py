"""Faults of one process of two, and what each of them says."""

import json
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from plain import PlainRewards
from processes import together
from several import ALGORITHMS, Plane, near
from torch.distributed import FileStore, destroy_process_group  # type: ignore[attr-defined]

from treerl.engine.trainer import Trainer
from treerl.errors import InputError, RewardError, Stopped, TreerlError
from treerl.run.drift import refuse_drift
from treerl.run.join import connect
from treerl.run.signals import Interrupt
from treerl.run.world import World


def faults(folder: Path) -> list[dict[str, str]]:
    """What each of two processes says when something is wrong in one of them."""
    folder.mkdir()
    together(_faulty, (str(folder),), 2)
    return [json.loads((folder / f"said.{rank}").read_text()) for rank in range(2)]


def _faulty(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    world = connect(FileStore(f"{folder}/store", 2), rank, 2, timeout=30)
    said = {
        "input": _error(lambda: world.attempt(lambda: _refuse(rank == 1))),
        "drift": _error(lambda: refuse_drift([torch.full((3,), rank / 10)], world, "iteration 3")),
        "gradient": _error(lambda: _not_finite(world)),
        "stop": _error(lambda: _stopped(world)),
        "lost": _error(lambda: _lost(world)),
    }
    Path(folder, f"said.{rank}").write_text(json.dumps(said))


def _error(work: Callable[[], object]) -> str:
    try:
        work()
    except TreerlError as error:
        return f"{type(error).__name__} {error.code}: {error}"
    return "nothing"


def _refuse(wrong: bool) -> None:
    if wrong:
        raise InputError("data.train: expected a file")


def _not_finite(world: World) -> None:
    """Rank 1 meets a gradient that is not finite; no weight of any process may move."""
    env = Plane()
    parameters = list(env.net.parameters())
    if world.rank == 1:
        hook = parameters[0].register_hook
        hook(lambda gradient: gradient * torch.nan)  # type: ignore[no-untyped-call]
    before = [parameter.detach().clone() for parameter in parameters]
    rewards = PlainRewards({"near": near})
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    trainer = Trainer(env, rewards, ALGORITHMS["depths"], optimizer, 4, peers=world)
    try:
        trainer.iterate([None] * 3)
    finally:
        for old, parameter in zip(before, parameters, strict=True):
            assert torch.equal(old, parameter)


def _stopped(world: World) -> None:
    """A signal comes to rank 1 in the middle of an iteration."""
    interrupt = Interrupt()
    env = Plane()
    calls: list[int] = []

    def check() -> None:
        calls.append(0)
        if world.rank == 1 and len(calls) == 3:
            interrupt.handle(signal.SIGTERM, None)
        try:
            interrupt.check_together(world)
        except Stopped as stopped:
            raise TreerlError(f"{stopped} at call {len(calls)}") from stopped

    rewards = PlainRewards({"near": near})
    optimizer = torch.optim.SGD(env.net.parameters(), lr=0.1)
    algorithm = ALGORITHMS["uneven"]
    trainer = Trainer(env, rewards, algorithm, optimizer, 4, check_interrupt=check, peers=world)
    trainer.iterate([None] * 3)


def _lost(world: World) -> None:
    """A reward fails in rank 1, which says so and ends."""
    if world.rank == 1:
        error = RewardError("reward near: it failed")
        world.tell(error)
        destroy_process_group()
        raise error
    world.agree(0)
