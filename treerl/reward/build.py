"""The rewards of a configuration, made before the model is loaded; whatever is missing is said at once."""

from collections.abc import Sequence
from typing import Any

from treerl import registry
from treerl.config.schema import Config
from treerl.errors import InputError
from treerl.reward.contract import Reward
from treerl.reward.frames import OverFrames
from treerl.reward.remote import Remote
from treerl.reward.worker import Worker


def found(config: Config, prompts: Sequence[str]) -> dict[str, Reward]:
    """The rewards; whatever a run lacks, of model and rewards, is said at once."""
    missing = []
    try:
        family = registry.load("backbones", config.backbone.name)
        family.check_available(config.backbone.settings(family.Settings))
    except InputError as error:
        missing.append(str(error))
    try:
        rewards = scorers(config, prompts)
    except InputError as error:
        missing.append(str(error))
    if missing:
        raise InputError("\n".join(missing))
    return rewards


def placed(name: str, options: dict[str, Any], config: Config) -> Reward:
    """A reward where it is to run: in this process, in one of its own, or on a server."""
    where = str(options.pop("where", config.scoring.where))
    if where == "process":
        reward: Reward = registry.build_reward(name, options)
        return reward
    if where == "worker":
        registry.load("rewards", name)  # a name that is none is said here, in our own words
        return Worker(
            name,
            {f"{name}.{field}": value for field, value in options.items()},
            config.scoring.deadline,
        )
    if not where.startswith(("http://", "https://")):
        raise InputError(
            f"scoring.where: expected process, worker or an address such as http://127.0.0.1:8000, got {where!r}"
        )
    if options:
        fields = ", ".join(sorted(options))
        raise InputError(
            f"scoring.options.{name}: expected no fields, as the server has set them, got {fields}"
        )
    return Remote(name, where, config.scoring.deadline)


def scorers(config: Config, prompts: Sequence[str]) -> dict[str, Reward]:
    """The rewards, trained and watched; `InputError` when one cannot score the samples or one of the prompts."""
    names = [*config.rewards, *config.watch]
    own = registry.reward_options(names, config.scoring.options)
    rewards = {name: placed(name, dict(own[name]), config) for name in names}
    makes = registry.load("backbones", config.backbone.name).modality
    for name, reward in rewards.items():
        if (makes, reward.takes) == ("videos", "images"):
            rewards[name] = OverFrames(
                reward, config.scoring.frames, config.scoring.over_frames == "min"
            )
        elif reward.takes != makes:
            what = f"it scores {reward.takes}, and {config.backbone.name} makes {makes}"
            raise InputError(f"rewards.{name}: {what}; choose with --reward (treerl list rewards)")
        try:
            reward.refuse(prompts)
        except InputError as error:
            raise InputError(
                f"rewards.{name}: {error}; choose with --reward or --prompts"
            ) from error
    return rewards
