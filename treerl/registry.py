"""Names to classes, looked up when asked: announced entry points, or a user's own file where that was allowed."""

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from treerl.errors import InputError

# kind: the contract that every plug-in of that kind subclasses
CONTRACTS = {
    "backbones": "treerl.backbone.contract:Backbone",
    "rewards": "treerl.reward.contract:Reward",
    "envs": "treerl.engine.env:PromptedEnv",
    "kernels": "treerl.engine.kernel:Kernel",
    "branchings": "treerl.engine.branching:Branching",
    "weightings": "treerl.engine.weighting:Weighting",
    "baselines": "treerl.engine.baseline:Baseline",
    "objectives": "treerl.engine.objective:Objective",
}


@cache
def announced(kind: str) -> dict[str, EntryPoint]:
    """The plug-ins of a kind by name; nothing is imported."""
    if kind not in CONTRACTS:
        raise InputError(f"unknown kind of plug-in {kind!r}; the kinds are {', '.join(CONTRACTS)}")
    return {point.name: point for point in sorted(entry_points(group=f"treerl.{kind}"))}


def is_file(name: str) -> bool:
    """Whether a name is a user's own class (`./mine.py:Name` or `package.module:Name`), not an announced plug-in."""
    return ":" in name


def load(kind: str, name: str) -> Any:
    """The class of that kind and name; `InputError` with the nearest name when there is none."""
    found: Any = _from_source(kind, name) if is_file(name) else _from_entry_point(kind, name)
    contract: Any = _resolve(CONTRACTS[kind])
    if not (isinstance(found, type) and issubclass(found, contract)):
        raise InputError(f"{kind}: {name}: expected a subclass of {CONTRACTS[kind]}, got {found!r}")
    if kind == "backbones":
        found.check_class()  # type: ignore[attr-defined]
    return found


def build(kind: str, name: str, section: Any, beside: type | None = None) -> Any:
    """An instance whose dataclass fields are taken from the configuration section's keys of the same name.

    Keys of `section.options` are the plug-in's own: fields of it, or of the class `beside` it in the same section.
    """
    found = load(kind, name)
    fields = _fields(found)
    unknown = sorted(set(section.options) - fields - _fields(beside))
    if unknown:
        raise InputError(
            f"{kind}: {name}: unknown option {unknown[0]!r}; it has {sorted(fields) or 'none'}"
        )
    options = {key: value for key, value in section.options.items() if key in fields}
    own = {
        key: getattr(section, key)
        for key in fields - set(options)
        if key in type(section).model_fields
    }
    try:
        return found(**own, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{kind}: {name}: {error}") from error


def build_rewards(names: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """The rewards of those names; an option `NAME.field` sets a field of that reward's dataclass."""
    return {name: build_reward(name, own) for name, own in reward_options(names, options).items()}


def reward_options(names: list[str], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each reward's own fields are set to."""
    own: dict[str, dict[str, Any]] = {name: {} for name in names}
    for path, value in options.items():
        name, _, field = path.rpartition(".")
        if name not in own:
            raise InputError(
                f"scoring.options.{path}: expected NAME.field of one of the rewards {', '.join(names)}"
            )
        own[name][field] = value
    return own


def build_reward(name: str, given: dict[str, Any]) -> Any:
    """A reward with these fields set."""
    found = load("rewards", name)
    unknown = sorted(set(given) - _fields(found))
    if unknown:
        fields = ", ".join(sorted(_fields(found))) or "none"
        raise InputError(
            f"scoring.options.{name}.{unknown[0]}: unknown option; {name} has {fields}"
        )
    try:
        return found(**given)
    except (TypeError, ValueError) as error:
        raise InputError(f"scoring.options.{name}: {error}") from error


def _fields(found: type | None) -> set[str]:
    return (
        {field.name for field in dataclasses.fields(found)}
        if dataclasses.is_dataclass(found)
        else set()
    )


def fingerprint(name: str) -> str | None:
    """`path sha256` of a plug-in that is a user's own file, for the record; None for every other name."""
    path = Path(name.rpartition(":")[0])
    if not is_file(name) or path.suffix != ".py":
        return None
    return f"{path.resolve()} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def nearest(name: str, known: list[str]) -> str:
    """A hint naming the closest known name and all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}known: {', '.join(known) or 'none (is treerl installed?)'}"


def _from_entry_point(kind: str, name: str) -> Any:
    points = announced(kind)
    if name not in points:
        raise InputError(f"{kind}: unknown name {name!r}; {nearest(name, list(points))}")
    return points[name].load()


def _from_source(kind: str, name: str) -> Any:
    source, _, attribute = name.rpartition(":")
    try:
        module = (
            _import_file(Path(source))
            if source.endswith(".py")
            else importlib.import_module(source)
        )
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{kind}: {name}: {type(error).__name__} while importing it: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise InputError(f"{kind}: {source} has no class {attribute!r}")
    return getattr(module, attribute)


def _import_file(path: Path) -> Any:
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"no such plug-in file: {path}")
    name = f"treerl_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # the suffix is .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = (
            module  # dataclasses look their module up while the file is still being run
        )
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _resolve(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
