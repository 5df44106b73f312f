"""What a run takes, from the seconds of its phases as this machine does them now."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from treerl.config.schema import Config
from treerl.engine.task import Samples
from treerl.engine.weight_sets import copies
from treerl.run.assemble import build
from treerl.run.calls import calls, evaluation_calls, evaluations
from treerl.run.rehearsal import Rehearsal
from treerl.run.session import Session

_REPEATS = 5  # timed, after one that is not: the first call of a shape prepares itself


def measure(config: Config) -> dict[str, Any]:
    """Seconds of an iteration by phase and hours of the run, from a few calls of each phase."""
    session = build(config)
    try:
        seconds = _seconds(session, config.train.micro_batch_size)
    finally:
        session.close()
    expected = calls(config, session.plan, len(session.tasks))
    once = evaluation_calls(config, len(session.heldout))
    iteration = _total(seconds, expected)
    evaluation = _total(seconds, once)
    whole = iteration * config.train.iterations + evaluation * evaluations(config)
    phases = {name: {"seconds": seconds[name], "calls": count} for name, count in expected.items()}
    return {
        "device": _name(session.env.device),
        "phases": phases,
        "iteration": iteration,
        "evaluation": evaluation,
        "hours": whole / 3600,
    }


def rehearsal_of(session: Session) -> Rehearsal:
    """The phases of a session's own model."""
    task = session.tasks[0]
    env = session.env.with_tasks([task])
    groups = session.trainer.optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    compares = session.algorithm.objective.weight_set is not None

    def latents(count: int) -> Tensor:
        x = torch.randn(count, *env.shape, device=env.latent_device)
        return x.to(env.latent_dtype)

    return Rehearsal(
        backbone=session.backbone,
        env=env,
        condition=session.backbone.encode([task]),
        algorithm=session.algorithm,
        spec=max(session.plan.support, key=lambda spec: max(spec.children)),
        parameters=parameters,
        others=copies(parameters) if compares else (),
        latents=latents,
    )


def _seconds(session: Session, rows: int) -> dict[str, float]:
    """The median of each phase: a call of `rows` rows, one task, one sample of the rewards."""
    rehearsal = rehearsal_of(session)
    device = session.env.device
    task = session.tasks[0]
    samples = _samples(rehearsal, session, rows)

    def encode() -> None:
        with session.backbone.encoding():
            session.backbone.encode([task])

    def score() -> None:
        session.rewards(samples)

    def step() -> None:
        session.trainer.optimizer.step()

    works = {
        "encode": encode,
        "rollout": rehearsal.window(rows),
        "decode": rehearsal.decode(rows),
        "reward": score,
        "update": rehearsal.update(rows),
        "optimizer step": step,  # by the gradients that the update left
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(1 + _REPEATS):  # in turns, as a machine may be busier for a while
        for name, work in works.items():
            taken[name].append(_timed(work, device))
    seconds = {name: median(times[1:]) for name, times in taken.items()}
    seconds["reward"] /= rows
    return seconds


def _samples(rehearsal: Rehearsal, session: Session, rows: int) -> Samples:
    with torch.no_grad():
        sample = session.backbone.decode(
            rehearsal.latents(1).to(session.env.device), rehearsal.condition
        )
    images = sample.cpu().repeat_interleave(rows, 0)
    return Samples(images, (session.tasks[0],) * rows, torch.zeros(rows, dtype=torch.int64))


def _timed(work: Callable[[], None], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _total(seconds: dict[str, float], calls: dict[str, float]) -> float:
    return sum(seconds[name] * count for name, count in calls.items())


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
