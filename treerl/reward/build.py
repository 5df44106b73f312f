"""The rewards that plain data names: where each runs, and what it is of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from treerl import registry
from treerl.engine.task import Modality
from treerl.errors import InputError
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
    connect: bool = True,
) -> Rewards:
    """The rewards by name, for samples of this modality; `InputError` when one cannot be had.

        build_rewards({"hps": 0.8, "judge": {"weight": 0.2, "executor": "worker", "model": "m"}})

    They are made and not loaded yet, as `Rewards.load` does. Without `connect` those of a server
    are left out, and the others can only be asked about tasks.
    """
    scorers: dict[str, Reward] = {}
    weights = {}
    missing = []
    try:
        with interruptible(check_interrupt):
            for name, spec in specs.items():
                fields = dict(spec) if isinstance(spec, Mapping) else {"weight": spec}
                weight = float(fields.pop("weight", 1.0))
                try:
                    place = Place.of(name, fields, scoring)
                    if connect or not place.on_server:
                        reward = place.reward(connect)
                        scorers[name] = _matched(name, reward, scoring, modality)
                        weights[name] = weight
                except InputError as error:
                    missing.append(str(error))
        if missing:
            raise InputError("\n".join(missing))
    except BaseException:
        for reward in scorers.values():
            reward.close()
        raise
    return Rewards(scorers, weights, scoring.on_bad_reward, scoring.retries, check_interrupt)


@dataclass(frozen=True)
class Place:
    """Where a reward is to run: in this process, in one of its own, or on a server."""

    name: str
    executor: str
    timeout: float
    parameters: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, fields: Mapping[str, Any], scoring: Scoring) -> "Place":
        """What a reward's fields say; `InputError` when it cannot run there."""
        parameters = dict(fields)
        executor = str(parameters.pop("executor", scoring.executor))
        timeout = float(parameters.pop("timeout", scoring.timeout))
        place = cls(name, executor, timeout, parameters)
        if executor in ("process", "worker"):
            return place
        if not place.on_server:
            raise InputError(
                f"rewards.{name}.executor: expected process, worker or an address such as "
                f"http://127.0.0.1:8000, got {executor!r}"
            )
        if parameters:
            names = ", ".join(sorted(parameters))
            raise InputError(
                f"rewards.{name}: expected no fields, as the server has set them, got {names}"
            )
        Remote.client_of(name, executor, timeout)  # refuses what is no address
        return place

    @property
    def on_server(self) -> bool:
        """Whether somebody else runs it."""
        return self.executor.startswith(("http://", "https://"))

    def reward(self, load: bool = True) -> Reward:
        """The reward there; one in a worker is loaded at once, as that process is there for it."""
        if self.executor == "process":
            return make(self.name, self.parameters)
        if self.executor == "worker":
            return Worker(self.name, self.parameters, self.timeout, load)
        return Remote.connect(self.name, self.executor, self.timeout)


def make(name: str, parameters: Mapping[str, Any]) -> Reward:
    """A reward of this process, not loaded; `InputError` says why there is none."""
    reward: Reward = registry.build("rewards", name, parameters, f"rewards.{name}")
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
