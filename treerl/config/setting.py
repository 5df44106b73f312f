"""The types of single settings, and the words for them in error messages."""

import math
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from treerl.engine.recipes import recipes
from treerl.registry import nearest

# Decimal only: no hexadecimal, no digit groups, no "nan"; YAML 1.1 readers deliver 1e-4 as this kind of text.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_LONGEST = 4096  # characters in one text: no path or name is longer


@dataclass(frozen=True)
class Expected:
    """The words for a type whose annotation does not say it all."""

    words: str


def to_float(value: object) -> object:
    """Text and integers that mean a number become one; what stays is refused by the strict float after this."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return value


def _clean(text: str) -> str:
    if not text or len(text) > _LONGEST or any(is_control(letter) for letter in text):
        raise ValueError("not a clean text")  # worded by `describe`
    return text


def is_control(letter: str) -> bool:
    """Control characters and halves of surrogate pairs: neither belongs in a name, a path or a prompt."""
    code = ord(letter)
    return code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000


def _non_zero(value: float) -> float:
    if value == 0:
        raise ValueError("zero")  # worded by `describe`
    return value


Int = Annotated[int, Strict()]
Number = Annotated[float, Strict(), BeforeValidator(to_float), Field(allow_inf_nan=False)]
Bool = Annotated[bool, Strict()]
Text = Annotated[
    str, Strict(), AfterValidator(_clean), Expected("a text without control characters")
]
Weight = Annotated[Number, AfterValidator(_non_zero), Expected("a finite number other than 0")]
Dtype = Literal["float32", "bfloat16", "float16"]


class Section(BaseModel):
    """Settings that belong together; unknown keys are refused, nothing changes after the check."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), arbitrary_types_allowed=True
    )


def known_recipe(name: str) -> str:
    """The name of a recipe that there is."""
    if name not in recipes:
        why = f"unknown name {shorten(name)} among the recipes; {nearest(name, list(recipes))}"
        raise PydanticCustomError("name", "{why}", {"why": why})
    return name


def describe(field: FieldInfo) -> str:
    """What a field accepts, in words: `an integer >= 1 or null`."""
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, metadata: Iterable[Any]) -> str:
    metadata = [
        part
        for item in metadata
        for part in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]
    told = [item.words for item in metadata if isinstance(item, Expected)]
    if told:
        return told[0]
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _words(inner, [*more, *metadata])
    if origin in (Union, types.UnionType):
        return " or ".join(_words(arm, metadata) for arm in get_args(annotation))
    if origin is Literal:
        names = [str(name) for name in get_args(annotation)]
        return f"one of {', '.join(names)}" if len(names) > 1 else f"'{names[0]}'"
    return (
        _plain(annotation) + _bounds(metadata) if annotation in (int, float) else _plain(annotation)
    )


def _plain(kind: Any) -> str:
    if get_origin(kind) is dict:
        return "a mapping"
    names = {
        int: "an integer",
        float: "a number",
        bool: "true or false",
        str: "a text",
        type(None): "null",
    }
    return names.get(kind, "a mapping")  # every other type is a section


def _bounds(metadata: Iterable[Any]) -> str:
    limits = []
    for item in metadata:
        match item:
            case Ge(ge=limit):
                limits.append(f">= {limit}")
            case Gt(gt=limit):
                limits.append(f"> {limit}")
            case Le(le=limit):
                limits.append(f"<= {limit}")
            case Lt(lt=limit):
                limits.append(f"< {limit}")
            case MultipleOf(multiple_of=limit):
                limits.append(f"a multiple of {limit}")
    return " " + " and ".join(limits) if limits else ""


def shorten(value: object) -> str:
    """A value for the end of an error line: short, on one line, and printable everywhere."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**50:
        return "an integer of more than 50 digits"  # Python refuses to print some
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
