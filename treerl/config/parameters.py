"""A plug-in as a setting: a name and its own parameters, typed and bounded by its dataclass."""

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic_core import PydanticCustomError

from treerl import registry
from treerl.config.setting import Bool, Int, Number, Text, describe, shorten
from treerl.errors import InputError

_SIMPLE = {int: Int, float: Number, bool: Bool, str: Text}


@dataclass(frozen=True)
class Plugin:
    """A plug-in's name and the parameters that differ from its defaults, checked."""

    kind: str  # branchings, kernels, ...
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Any:
        """The plug-in; of a backbone its settings."""
        return registry.build(self.kind, self.name, self.params)

    def get(self, key: str, default: Any = None) -> Any:
        """A parameter, or its default where it was not set."""
        return self.params.get(key, default)


@dataclass(frozen=True)
class Refusal:
    """One thing that is wrong with a plug-in's setting."""

    key: str  # below the setting; "" is the setting itself
    text: str


def plugin(kind: str) -> BeforeValidator:
    """A validator that makes a `Plugin` of `NAME` or of `{name: NAME, **parameters}`."""

    def check(value: object, info: ValidationInfo) -> Plugin:
        context = info.context if isinstance(info.context, Mapping) else {}
        return _checked(kind, value, bool(context.get("allow_plugins", False)))

    return BeforeValidator(check)


def refuse(refusals: list[Refusal]) -> PydanticCustomError:
    """The error that carries several refusals to where their sources are known."""
    text = "; ".join(f"{refusal.key}: {refusal.text}" for refusal in refusals)
    return PydanticCustomError("plugin", "{text}", {"text": text, "refusals": refusals})


def check_name(kind: str, name: object, allow_plugins: bool) -> str:
    """The name of a plug-in that is announced, or of a user's own where that was allowed."""
    if not isinstance(name, str):
        raise refuse(
            [Refusal("name", f"expected the name of one of the {kind}, got {shorten(name)}")]
        )
    if registry.is_file(name):
        if allow_plugins:
            return name
        why = "is a plug-in from outside the registry; add --allow-plugins to the command line"
        raise refuse([Refusal("name", f"{shorten(name)} {why} to run its code")])
    known = list(registry.announced(kind))
    if name not in known:
        hint = registry.nearest(name, known)
        if name.endswith(".py"):
            hint = f"a class of a file is written {name}:Class"
        raise refuse([Refusal("name", f"unknown name {shorten(name)} among the {kind}; {hint}")])
    return name


def check_params(kind: str, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, converted; `PydanticCustomError` names each that the dataclass refuses."""
    if not params and not registry.is_file(name):
        return {}  # nothing to look up, and nothing to import for it
    try:
        model = _model(registry.parameters(kind, name), kind, name)
    except InputError as error:
        raise refuse([Refusal("name", str(error).removeprefix(f"{kind}: "))]) from error
    try:
        checked = model.model_validate(dict(params))
    except ValidationError as error:
        raise refuse(list(_refusals(error, model, params))) from error
    values = {key: getattr(checked, key) for key in params}
    try:
        registry.build(kind, name, values)
    except InputError as error:
        raise refuse([Refusal("", str(error).removeprefix(f"{kind}: {name}: "))]) from error
    return values


def settings_of(kind: str, value: object) -> dict[str, Any]:
    """A plug-in instance as the mapping that stands for it: its announced name and its fields."""
    settings: dict[str, Any] = {"name": registry.name_of(kind, type(value))}
    if dataclasses.is_dataclass(value):
        for parameter in dataclasses.fields(value):
            if parameter.init:
                settings[parameter.name] = getattr(value, parameter.name)
    return settings


def _checked(kind: str, value: object, allow_plugins: bool) -> Plugin:
    if isinstance(value, Plugin):
        value = {"name": value.name, **value.params}
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or "name" not in value:
        got = shorten(value)
        raise refuse(
            [
                Refusal(
                    "", f"expected the name of one of the {kind}, or a mapping with it, got {got}"
                )
            ]
        )
    name = check_name(kind, value["name"], allow_plugins)
    params = {key: inner for key, inner in value.items() if key != "name"}
    return Plugin(kind, name, check_params(kind, name, params))


@cache
def _model(holder: type, kind: str, name: str) -> type[BaseModel]:
    """A strict pydantic model of the parameters."""
    hints = get_type_hints(holder, include_extras=True)
    types_: dict[str, Any] = {}
    for parameter in registry.fields(kind, name):
        types_[parameter.name] = (strict(hints[parameter.name]), _default(parameter))
    config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)
    model: type[BaseModel] = create_model(holder.__name__, __config__=config, **types_)
    return model


def _default(parameter: "dataclasses.Field[Any]") -> Any:
    if parameter.default is not dataclasses.MISSING:
        return parameter.default
    if parameter.default_factory is not dataclasses.MISSING:
        return parameter.default_factory()
    return ...


def strict(annotation: Any) -> Any:
    """The annotation with numbers and texts read as all settings are: nothing is coerced."""
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        return Annotated[(strict(inner), *metadata)]
    if origin in (Union, types.UnionType):
        return Union[tuple(strict(arm) for arm in get_args(annotation))]  # noqa: UP007
    return annotation


def _refusals(
    error: ValidationError, model: type[BaseModel], params: Mapping[str, Any]
) -> Iterator[Refusal]:
    seen = set()
    for entry in error.errors(include_url=False):
        key = str(entry["loc"][0])
        if key in seen:  # a union refuses once for each of its arms
            continue
        seen.add(key)
        if entry["type"] == "extra_forbidden":
            yield Refusal(key, f"unknown key; {registry.nearest(key, list(model.model_fields))}")
        elif entry["type"] == "missing":
            yield Refusal(key, f"expected {describe(model.model_fields[key])}, got nothing")
        else:
            words = describe(model.model_fields[key])
            yield Refusal(key, f"expected {words}, got {shorten(params[key])}")
