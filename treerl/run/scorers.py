"""The rewards of a configuration, trained and watched, made before the model is loaded."""

from collections.abc import Callable, Sequence
from typing import Any

from treerl import registry
from treerl.config.schema import Config
from treerl.engine.task import Modality
from treerl.errors import InputError
from treerl.reward.build import Scoring, build_rewards
from treerl.reward.rewards import Rewards


def found(
    config: Config, prompts: Sequence[str], check_interrupt: Callable[[], None] = lambda: None
) -> tuple[Rewards, Rewards]:
    """The trained and the watched rewards; whatever a run lacks is said at once."""
    missing = []
    try:
        registry.load("backbones", config.backbone.name).find(config.backbone)
    except InputError as error:
        missing.append(str(error))
    try:
        rewards = scorers(config, prompts, check_interrupt)
    except InputError as error:
        missing.append(str(error))
    if missing:
        raise InputError("\n".join(missing))
    return rewards


def scorers(
    config: Config, prompts: Sequence[str], check_interrupt: Callable[[], None] = lambda: None
) -> tuple[Rewards, Rewards]:
    """The rewards; `InputError` when one cannot score the samples or one of the prompts."""
    own = registry.reward_options([*config.rewards, *config.watch], config.scoring.options)
    makes = registry.load("backbones", config.backbone.name).makes
    modality: Modality = "videos" if makes == "videos" else "images"
    trained = {name: {**spec(own[name]), "weight": w} for name, w in config.rewards.items()}
    watched = {name: spec(own[name]) for name in config.watch}
    built = tuple(
        build_rewards(specs, scoring(config), modality, check_interrupt)
        for specs in (trained, watched)
    )
    for rewards in built:
        try:
            rewards.validate_tasks(prompts)
        except InputError as error:
            raise InputError(f"{error}; choose with --reward or --prompts") from error
    return built[0], built[1]


def spec(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of a reward under the names that they will have."""
    names = {"where": "executor", "deadline": "timeout"}
    return {names.get(field, field): value for field, value in options.items()}


def scoring(config: Config) -> Scoring:
    """The settings that hold for all rewards."""
    s = config.scoring
    return Scoring(s.where, s.deadline, s.on_bad_reward, s.retries, s.frames, s.over_frames)
