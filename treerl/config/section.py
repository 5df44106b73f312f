"""What settings are made of: sections of typed values, plug-ins with their parameters, names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from treerl import registry
from treerl.errors import InputError, ParameterError, describe, is_control, shorten

_LONGEST = 4096  # characters in one text: no path or name is longer


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with settings, in words."""

    message: str
    keys: tuple[str, ...] = ()  # where below the value that is checked
    paths: tuple[str, ...] = ()  # dotted, of settings that do not fit together


@dataclass(frozen=True)
class Expected:
    """The words for a type that its JSON schema does not describe."""

    words: str

    def __get_pydantic_json_schema__(
        self, schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "expected": self.words}


def refusal(*problems: Problem) -> ValidationError:
    """Problems as an error that pydantic collects with its own."""
    details: list[InitErrorDetails] = []
    for problem in problems:
        context = {"text": problem.message, "paths": problem.paths}
        error = PydanticCustomError("refused", "{text}", context)
        details.append({"type": error, "loc": problem.keys, "input": None})
    return ValidationError.from_exception_data("settings", details)


def default(**values: Any) -> Any:
    """A default that is checked as what is written is: an empty mapping, or these values."""
    return Field(default_factory=lambda: dict(values), validate_default=True)


class Section(BaseModel):
    """Settings that belong together; unknown keys are refused, nothing changes after the check."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    @field_validator("*", mode="wrap")
    @classmethod
    def _worded(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        """The value, or one error: what was expected, and what came."""
        schema = properties(cls)[str(info.field_name)]
        arms = {arm.get("type") for arm in schema.get("anyOf", [schema])}
        number = registry.to_float(value) if arms <= {"number", "null"} else value
        try:
            return handler(number)
        except ValidationError as error:
            entries = error.errors(include_url=False)
            inside = isinstance(value, Mapping) and any(entry["loc"] for entry in entries)
            if inside or any(entry["type"] == "refused" for entry in entries):
                raise
        kind = cls.model_fields[str(info.field_name)].annotation
        words = describe(schema)
        if isinstance(kind, type) and issubclass(kind, Plugin):
            words = f"the name of one of the {kind.kind}, or a mapping with it"
        raise refusal(Problem(f"expected {words}, got {shorten(value)}"))


@cache
def properties(section: type[Section]) -> dict[str, Any]:
    """The JSON schema of each setting of a section."""
    schema: dict[str, Any] = section.model_json_schema()["properties"]
    return schema


class Plugin(Section):
    """A plug-in: its name, and beside it its own parameters, which its dataclass describes."""

    model_config = ConfigDict(extra="allow")

    kind: ClassVar[str]
    path: ClassVar[str]  # where it stands
    name: str

    def __init_subclass__(cls, kind: str, path: str, **config: Any) -> None:
        super().__init_subclass__(**config)
        cls.kind = kind
        cls.path = path

    @property
    def params(self) -> dict[str, Any]:
        """Its own parameters, checked: all of them, but of a reward those that are set."""
        return dict(self.model_extra or {})

    def build(self) -> Any:
        """The plug-in itself (of a backbone its `Settings`)."""
        return registry.build(self.kind, self.name, self.params, self.place)

    @property
    def place(self) -> str:
        """Its dotted path."""
        return self.path

    @classmethod
    def longhand(cls, value: Any) -> Any:
        """What a shorthand stands for: a text is the plug-in's name."""
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, value: Any) -> Any:
        return cls.longhand(value)

    @model_validator(mode="after")
    def _known(self, info: ValidationInfo) -> Self:
        check_name(self.kind, self.name, info, ("name",))
        extra = self.__pydantic_extra__
        if extra is None or _names_only(info) or (self.kind == "rewards" and not extra):
            return self
        try:
            stands = type(self).model_fields.items()
            beside = [name for name, field in stands if not field.exclude]
            complete = registry.complete(self.kind, self.name, extra, self.place, beside)
        except ParameterError as error:
            raise refusal(*(Problem(text, keys) for keys, text in error.problems)) from None
        except InputError as error:
            raise refusal(Problem(str(error), ("name",))) from None
        extra.clear()
        extra.update(complete)
        return self


def _names_only(info: ValidationInfo) -> bool:
    return bool((info.context or {}).get("names_only"))


def check_name(kind: str, name: str, info: ValidationInfo, keys: tuple[str, ...] = ()) -> None:
    """Refuse a name that is neither announced nor a class of one's own that was allowed."""
    known = registry.announced(kind)
    if name.endswith(".py"):
        raise refusal(Problem(f"expected {name}:Class, got {shorten(name)}", keys))
    if registry.is_file(name):
        if (info.context or {}).get("allow_plugins"):
            return
        why = (
            f"{shorten(name)} is a plug-in from outside the registry; add --allow-plugins to the "
            "command line to run its code"
        )
        raise refusal(Problem(why, keys))
    if name not in known:
        why = f"unknown name {shorten(name)} among the {kind}; {registry.nearest(name, known)}"
        raise refusal(Problem(why, keys))


def keyed(value: Any) -> Any:
    """Rewards by name: each is told its key as its name; a number alone is its weight."""
    if not isinstance(value, Mapping):
        return value
    named: dict[Any, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            if "name" in inner:
                raise refusal(Problem("unknown key; its key is its name", (str(key), "name")))
            named[key] = {"name": key, **inner}
        elif isinstance(inner, Plugin):
            named[key] = inner
        else:
            named[key] = {"name": key, "weight": inner}
    return named


def named(value: Any) -> Any:
    """A list of different names is a mapping without settings; all else is as it is."""
    names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return {name: {} for name in value} if names and len(set(value)) == len(value) else value


def listed(value: Any) -> Any:
    """Watched rewards, by name or as a list."""
    return keyed(named(value))


def _clean(text: str) -> str:
    if not text or len(text) > _LONGEST or any(is_control(letter) for letter in text):
        raise ValueError("not a clean text")  # worded by `Expected`
    return text


def _executor(text: str) -> str:
    if text not in ("process", "worker") and not text.startswith(("http://", "https://")):
        raise ValueError("not an executor")  # worded by `Expected`
    return text


def _not_zero(value: float) -> float:
    if value == 0:
        raise ValueError("zero")  # worded by `Expected`
    return value


def _env(name: str, info: ValidationInfo) -> str:
    check_name("envs", name, info)
    return name


def _recipe(name: str) -> str:
    if name != "treerl":  # spares the import of the engine, which is slow
        from treerl.engine.recipes import recipes

        if name not in recipes:
            hint = registry.nearest(name, recipes)
            raise refusal(Problem(f"unknown name {shorten(name)} among the recipes; {hint}"))
    return name


_TEXT = f"a text of 1 to {_LONGEST} characters without control characters"
Text = Annotated[str, AfterValidator(_clean), Expected(_TEXT)]
EnvName = Annotated[Text, AfterValidator(_env)]
Recipe = Annotated[Text, AfterValidator(_recipe)]
Executor = Annotated[
    Text,
    AfterValidator(_executor),
    Expected("process, worker or an address such as http://127.0.0.1:8000"),
]
Weight = Annotated[float, AfterValidator(_not_zero), Expected("a finite number other than 0")]
