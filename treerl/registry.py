"""Plug-ins by kind and name: their classes, their parameters, and instances of them."""

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from treerl.errors import (
    OWN_FILES,
    InputError,
    ParameterError,
    Problems,
    TreerlError,
    describe,
    is_control,
    printable,
    reason,
    shorten,
)

# kind: the contract that every plug-in of that kind subclasses
CONTRACTS = {
    "backbones": "treerl.backbone.contract:Backbone",
    "rewards": "treerl.reward.contract:Reward",
    "envs": "treerl.backbone.env:BackboneEnv",
    "kernels": "treerl.engine.kernel:Kernel",
    "branchings": "treerl.engine.branching:Branching",
    "normalisers": "treerl.engine.normaliser:Normaliser",
    "couplings": "treerl.engine.coupling:Coupling",
    "weightings": "treerl.engine.weighting:Weighting",
    "baselines": "treerl.engine.baseline:Baseline",
    "selections": "treerl.engine.selection:Selection",
    "objectives": "treerl.engine.objective:Objective",
}
_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
# decimal only: no hexadecimal, no digit groups, no "nan"; other YAML readers deliver 1e-4 as text
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)


@cache
def announced(kind: str) -> dict[str, EntryPoint]:
    """The plug-ins of a kind by name; nothing is imported."""
    if kind not in CONTRACTS:
        raise InputError(f"unknown kind of plug-in {kind!r}; {nearest(kind, CONTRACTS)}")
    return {point.name: point for point in sorted(entry_points(group=f"treerl.{kind}"))}


def is_file(name: str) -> bool:
    """Whether a name is a class of somebody's own: `./mine.py:Name` or `package.module:Name`."""
    return ":" in name or name.endswith(".py")


def source_file(name: str) -> Path | None:
    """The file of a plug-in that is a user's own `./mine.py:Name`; None for every other name."""
    path = Path(name.rpartition(":")[0])
    return path if path.suffix == ".py" else None


def nearest(name: str, known: Iterable[str], path: str = "") -> str:
    """A hint: the closest known name, below a dotted path, or else all of them."""
    names = list(known)
    close = difflib.get_close_matches(name[:200], names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {'.'.join(filter(None, (path, close[0])))}?"
    return f"known: {', '.join(names) or 'none'}"


def load(kind: str, name: str) -> Any:
    """The class of that kind and name; `InputError` with the nearest name when there is none."""
    points = announced(kind)
    if not is_file(name) and name not in points:
        raise InputError(f"{kind}: unknown name {shorten(name)}; {nearest(name, points)}")
    with _guarded(f"{kind}: {printable(name)}: cannot be imported"):
        plugin = _from_source(name) if is_file(name) else points[name].load()
    if not (isinstance(plugin, type) and issubclass(plugin, _from_source(CONTRACTS[kind]))):
        what = f"{kind}: {printable(name)}: expected a subclass of {CONTRACTS[kind]}"
        raise InputError(f"{what}, got {printable(plugin)}")
    if kind == "backbones":
        plugin.check_class()  # type: ignore[attr-defined]
    return plugin


def parameters(kind: str, name: str) -> type:
    """The class whose dataclass fields are the parameters: a backbone's `Settings`, else itself."""
    plugin: type = load(kind, name)
    return plugin.Settings if kind == "backbones" else plugin  # type: ignore[attr-defined]


def build(kind: str, name: str, params: Mapping[str, Any], path: str = "") -> Any:
    """The plug-in with these parameters (of a backbone its `Settings`, which its `load` takes).

    `ParameterError` has a line for each mistake, at its dotted path.
    """
    holder = parameters(kind, name)
    return _instance(holder, _values(holder, params, path or kind), path or kind)


def complete(
    kind: str, name: str, params: Mapping[str, Any], path: str = "", beside: Iterable[str] = ()
) -> dict[str, Any]:
    """All parameters as plain data, those that are not set at their defaults.

    An instance is made, for its own rules; not of a reward, which may be costly: what is set.
    """
    holder = parameters(kind, name)
    values = _values(holder, params, path or kind, beside)
    if kind != "rewards":
        instance = _instance(holder, values, path or kind)
        values = {field: getattr(instance, field) for field in fields(holder)}
    return plain(holder, values)


def fields(holder: type) -> dict[str, dataclasses.Field[Any]]:
    """The parameters of a dataclass by name; any other class has none."""
    members = dataclasses.fields(holder) if dataclasses.is_dataclass(holder) else ()
    return {field.name: field for field in members if field.init}


def plain(holder: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a dataclass's parameters as plain data."""
    known = {name: adapter for name, adapter in _adapters(holder).items() if name in values}
    return {name: known[name].dump_python(values[name], mode="json") for name in known}


def words(holder: type, name: str) -> str:
    """What a parameter accepts: `a number > 0 and <= 10`."""
    try:
        return describe(_adapters(holder)[name].json_schema())
    except PydanticUserError:  # of a type that no text can stand for
        return f"a value of type {fields(holder)[name].type}"


def to_float(value: object) -> object:
    """Text and integers that mean a number become one; what stays is refused by a strict float."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 10**300 else math.inf
    return value


@cache
def _adapters(holder: type) -> dict[str, TypeAdapter[Any]]:
    with _guarded(f"{holder.__qualname__}: its fields are no parameters"):
        types = get_type_hints(holder, include_extras=True)
        return {name: TypeAdapter(types[name], config=_STRICT) for name in fields(holder)}


def _values(
    holder: type, params: Mapping[str, Any], path: str, beside: Iterable[str] = ()
) -> dict[str, Any]:
    """The parameters as their types want them."""
    known = fields(holder)
    problems: Problems = []
    values = {}
    for key, value in params.items():
        if key not in known:
            problems.append(((key,), f"unknown key; {nearest(key, [*beside, *known], path)}"))
            continue
        try:
            values[key] = _value(_adapters(holder)[key], value)
        except (ValidationError, ValueError, TypeError):
            problems.append(((key,), f"expected {words(holder, key)}, got {shorten(value)}"))
    for key, field in known.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and key not in params:
            problems.append(((key,), f"expected {words(holder, key)}, as it has no default"))
    if problems:
        raise ParameterError(path, problems)
    return values


def _value(adapter: TypeAdapter[Any], value: Any) -> Any:
    if isinstance(value, str) and any(is_control(letter) and letter != "\n" for letter in value):
        raise ValueError("control characters")
    # as JSON, whose lists are tuples too and whose texts are paths too, and nothing else is
    try:
        return adapter.validate_json(json.dumps(value))
    except ValidationError:
        if not isinstance(value, str):
            raise
        return adapter.validate_python(to_float(value))


def _instance(plugin: type, values: Mapping[str, Any], path: str) -> Any:
    try:
        return plugin(**values)
    except (TreerlError, KeyboardInterrupt):
        raise
    except BaseException as error:
        rule = isinstance(error, ValueError)  # one of its own, which says what is wrong by itself
        text = printable(error) if rule else f"{plugin.__qualname__} raised {reason(error)}"
        raise ParameterError(path, [((), text)]) from error


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    """Around somebody else's code: whatever it raises is one line."""
    try:
        yield
    except (TreerlError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise InputError(f"{what}: {reason(error)}") from error


def _from_source(name: str) -> Any:
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise InputError(f"expected FILE.py:CLASS or module:CLASS, got {shorten(name)}")
    module = _import_file(source) if source.endswith(".py") else importlib.import_module(source)
    if not hasattr(module, attribute):
        raise InputError(f"{printable(source)} has no class {shorten(attribute)}")
    return getattr(module, attribute)


def _import_file(source: str) -> Any:
    path = Path(source).resolve()
    if not path.is_file():
        raise InputError(f"no such plug-in file: {printable(path)}")
    name = f"{OWN_FILES}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look it up while the file is still being run
    # behind everything installed, and for good: a neighbour may be imported later, in a method
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
