"""Rewards as settings: a number is short for a weight, a mapping has the reward's parameters too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from treerl.config.parameters import Plugin, Refusal, check_name, check_params, refuse
from treerl.config.setting import Number, Section, Text, Weight, describe, shorten

_REWARDS = "a mapping of at least one reward's name to its weight"


class Runs(Section):
    """How one reward runs, beside its own parameters; null is what `scoring` says."""

    executor: Text | None = None
    timeout: Annotated[Number, Field(gt=0, le=86_400)] | None = None


class Weighed(Runs):
    """The same of a reward that is trained on."""

    weight: Weight = 1.0


@dataclass(frozen=True)
class RewardSetting:
    """A reward by name: its weight, where it runs, and its own parameters."""

    plugin: Plugin
    weight: float | None = 1.0  # None of one that is only watched
    executor: str | None = None
    timeout: float | None = None

    def spec(self) -> dict[str, Any]:
        """The setting as `treerl.reward.build` reads it; what is null is left to `scoring`."""
        runs = {"weight": self.weight, "executor": self.executor, "timeout": self.timeout}
        named = {name: value for name, value in runs.items() if value is not None}
        return {**named, **self.plugin.params}


def _reward_settings(weighed: bool) -> BeforeValidator:
    def check(value: object, info: ValidationInfo) -> dict[str, RewardSetting]:
        context = info.context if isinstance(info.context, Mapping) else {}
        allowed = bool(context.get("allow_plugins", False))
        if isinstance(value, list):
            value = {name if isinstance(name, str) else "": {} for name in value}
        if not isinstance(value, Mapping) or (weighed and not value):
            raise refuse([Refusal("", f"expected {_REWARDS}, got {shorten(value)}")])
        settings = {}
        refusals: list[Refusal] = []
        for name, inner in value.items():
            try:
                settings[name] = _reward_setting(name, inner, weighed, allowed)
            except PydanticCustomError as error:
                below: list[Refusal] = (error.context or {})["refusals"]
                for refusal in below:
                    key = refusal.key.removeprefix("name")
                    refusals.append(Refusal(f"{name}.{key}".rstrip("."), refusal.text))
        if refusals:
            raise refuse(refusals)
        return settings

    return BeforeValidator(check)


def _reward_setting(name: str, value: object, weighed: bool, allowed: bool) -> RewardSetting:
    if isinstance(value, RewardSetting):
        return value
    check_name("rewards", name, allowed)
    if not isinstance(value, Mapping):
        if not weighed:
            raise refuse([Refusal("", f"expected a mapping of parameters, got {shorten(value)}")])
        value = {"weight": value}
    common = Weighed if weighed else Runs
    own = {key: inner for key, inner in value.items() if key not in common.model_fields}
    runs = {key: inner for key, inner in value.items() if key in common.model_fields}
    checked = {"weight": None, **check_section(common, runs)}
    params = check_params("rewards", name, own)
    return RewardSetting(Plugin("rewards", name, params), **checked)


def check_section(section: type[Section], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a small section, converted; refusals below its keys."""
    try:
        checked = section.model_validate(values)
    except ValidationError as error:
        refusals = {}
        for entry in error.errors(include_url=False):
            key = str(entry["loc"][0])
            words = describe(section.model_fields[key])
            refusals[key] = Refusal(key, f"expected {words}, got {shorten(values[key])}")
        raise refuse(list(refusals.values())) from error
    return dict(checked)


Rewards = Annotated[dict[str, RewardSetting], _reward_settings(weighed=True)]
Watch = Annotated[dict[str, RewardSetting], _reward_settings(weighed=False)]
