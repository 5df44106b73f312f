"""The rewards that plain data names: where each runs, and what it is of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from treerl import registry
from treerl.engine.task import Modality
from treerl.errors import InputError, TreerlError, reason
from treerl.reward.contract import Reward
from treerl.reward.frames import OverFrames
from treerl.reward.interrupt import interruptible
from treerl.reward.remote import Remote
from treerl.reward.rewards import OnBadReward, Rewards
from treerl.reward.worker import Worker

Spec = (
    float | Mapping[str, Any]
)  # a weight; or weight, executor, timeout and the reward's own fields


@dataclass(frozen=True)
class Scoring:
    """What holds for all rewards that do not say otherwise."""

    executor: str = "process"  # process, worker or the address of a server
    timeout: float = 600.0  # seconds for a call in a worker or on a server
    on_bad_reward: OnBadReward = "stop"
    retries: int = 2
    frames: int = 4  # of a video that a reward of images looks at
    over_frames: str = "mean"  # or min


def build_rewards(
    specs: Mapping[str, Spec],
    scoring: Scoring = Scoring(),
    modality: Modality = "images",
    check_interrupt: Callable[[], None] = lambda: None,
) -> Rewards:
    """The rewards by name, for samples of this modality; `InputError` when one cannot be had.

    build_rewards({"hps": 0.8, "judge": {"weight": 0.2, "executor": "worker", "model": "m"}})
    """
    scorers: dict[str, Reward] = {}
    weights = {}
    try:
        with interruptible(check_interrupt):
            for name, spec in specs.items():
                fields = dict(spec) if isinstance(spec, Mapping) else {"weight": spec}
                weights[name] = float(fields.pop("weight", 1.0))
                scorers[name] = _matched(name, placed(name, fields, scoring), scoring, modality)
    except BaseException:
        for reward in scorers.values():
            reward.close()
        raise
    return Rewards(scorers, weights, scoring.on_bad_reward, scoring.retries, check_interrupt)


def placed(name: str, fields: Mapping[str, Any], scoring: Scoring) -> Reward:
    """A reward where it is to run: in this process, in one of its own, or on a server."""
    parameters = dict(fields)
    executor = str(parameters.pop("executor", scoring.executor))
    timeout = float(parameters.pop("timeout", scoring.timeout))
    if executor == "process":
        return made(name, parameters)
    if executor == "worker":
        return Worker(name, parameters, timeout)
    if not executor.startswith(("http://", "https://")):
        raise InputError(
            f"rewards.{name}.executor: expected process, worker or an address such as "
            f"http://127.0.0.1:8000, got {executor!r}"
        )
    if parameters:
        names = ", ".join(sorted(parameters))
        raise InputError(
            f"rewards.{name}: expected no fields, as the server has set them, got {names}"
        )
    return Remote.connect(name, executor, timeout)


def made(name: str, parameters: Mapping[str, Any]) -> Reward:
    """A reward of this process; `InputError` says why there is none."""
    try:
        reward: Reward = registry.build("rewards", name, parameters, f"rewards.{name}")
    except (TreerlError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise InputError(f"rewards.{name}: cannot be made: {reason(error)}") from error
    return reward


def _matched(name: str, reward: Reward, scoring: Scoring, modality: Modality) -> Reward:
    """The reward, as one that scores this modality."""
    if reward.modality == modality:
        return reward
    if modality == "videos":
        return OverFrames(reward, scoring.frames, scoring.over_frames == "min")
    reward.close()
    raise InputError(
        f"rewards.{name}: it scores {reward.modality}, and the backbone makes {modality}; "
        "choose with --reward (treerl list rewards)"
    )
