"""The rewards of a configuration, made before the model is loaded; whatever is missing is said at once."""

from collections.abc import Sequence

from treerl import registry
from treerl.config import Config
from treerl.errors import InputError
from treerl.reward import Reward
from treerl.scoring.frames import OverFrames


def found(config: Config, prompts: Sequence[str]) -> dict[str, Reward]:
    """The rewards; whatever a run lacks, of model and rewards, is said at once."""
    missing = []
    try:
        registry.load("backbones", config.backbone.name).find(config.backbone)
    except InputError as error:
        missing.append(str(error))
    try:
        rewards = scorers(config, prompts)
    except InputError as error:
        missing.append(str(error))
    if missing:
        raise InputError("\n".join(missing))
    return rewards


def scorers(config: Config, prompts: Sequence[str]) -> dict[str, Reward]:
    """The rewards, trained and watched; `InputError` when one cannot score the samples or one of the prompts."""
    rewards: dict[str, Reward] = registry.build_rewards([*config.rewards, *config.watch], config.scoring.options)
    makes = registry.load("backbones", config.backbone.name).makes
    for name, reward in rewards.items():
        if (makes, reward.takes) == ("videos", "pictures"):
            rewards[name] = OverFrames(reward, config.scoring.frames, config.scoring.over_frames == "min")
        elif reward.takes != makes:
            what = f"it scores {reward.takes}, and {config.backbone.name} makes {makes}"
            raise InputError(f"rewards.{name}: {what}; choose with --reward (treerl list rewards)")
        try:
            reward.refuse(prompts)
        except InputError as error:
            raise InputError(f"rewards.{name}: {error}; choose with --reward or --prompts") from error
    return rewards
