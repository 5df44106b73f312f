"""Names to classes: announced entry points, or a user's own file where that was allowed."""

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from treerl.errors import InputError, first_line, printable

# kind: the contract that every plug-in of that kind subclasses
CONTRACTS = {
    "backbones": "treerl.backbone.contract:Backbone",
    "rewards": "treerl.reward.contract:Reward",
    "envs": "treerl.backbone.env:BackboneEnv",
    "kernels": "treerl.engine.kernel:Kernel",
    "branchings": "treerl.engine.branching:Branching",
    "normalisers": "treerl.engine.normaliser:Normaliser",
    "weightings": "treerl.engine.weighting:Weighting",
    "baselines": "treerl.engine.baseline:Baseline",
    "selections": "treerl.engine.selection:Selection",
    "objectives": "treerl.engine.objective:Objective",
}


@cache
def announced(kind: str) -> dict[str, EntryPoint]:
    """The plug-ins of a kind by name; nothing is imported."""
    if kind not in CONTRACTS:
        raise InputError(f"unknown kind of plug-in {kind!r}; the kinds are {', '.join(CONTRACTS)}")
    return {point.name: point for point in sorted(entry_points(group=f"treerl.{kind}"))}


def is_file(name: str) -> bool:
    """Whether a name is a user's own class: `./mine.py:Name` or `package.module:Name`."""
    return ":" in name


def source_file(name: str) -> Path | None:
    """The file of a plug-in that is a user's own `./mine.py:Name`; None for every other name."""
    path = Path(name.rpartition(":")[0])
    return path if is_file(name) and path.suffix == ".py" else None


def load(kind: str, name: str) -> Any:
    """The class of that kind and name; `InputError` with the nearest name when there is none."""
    plugin: Any = _from_source(kind, name) if is_file(name) else _from_entry_point(kind, name)
    contract: Any = _resolve(CONTRACTS[kind])
    if not (isinstance(plugin, type) and issubclass(plugin, contract)):
        what = printable(repr(plugin))
        raise InputError(f"{kind}: {name}: expected a subclass of {CONTRACTS[kind]}, got {what}")
    checked: Any = plugin
    if kind == "backbones":
        checked.check_class()
    return checked


def name_of(kind: str, plugin: type) -> str:
    """The announced name of a class."""
    target = f"{plugin.__module__}:{plugin.__qualname__}"
    for name, point in announced(kind).items():
        if point.value == target:
            return name
    raise InputError(f"{kind}: {target} is not announced under a name")


def parameters(kind: str, name: str) -> type:
    """The dataclass whose fields are the plug-in's parameters: its own, or a backbone's `Settings`."""
    plugin = load(kind, name)
    holder: type = plugin.Settings if kind == "backbones" else plugin
    return holder


def fields(kind: str, name: str) -> tuple[dataclasses.Field[Any], ...]:
    """The parameters of a plug-in; none of a class that is no dataclass."""
    holder = parameters(kind, name)
    if not dataclasses.is_dataclass(holder):
        return ()
    return tuple(field for field in dataclasses.fields(holder) if field.init)


def build(kind: str, name: str, params: Mapping[str, Any]) -> Any:
    """A plug-in with these parameters; of a backbone its settings. `InputError` where it refuses."""
    holder = parameters(kind, name)
    known = [field.name for field in fields(kind, name)]
    for key in params:
        if key not in known:
            raise InputError(f"{kind}: {name}: unknown parameter {key!r}; {nearest(key, known)}")
    try:
        return holder(**params)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{kind}: {printable(name)}: {first_line(error)}") from error


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
        module = _import_file(Path(source)) if source.endswith(".py") else _import(source)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__} while importing it: {first_line(error)}"
        raise InputError(f"{kind}: {printable(name)}: {what}") from error
    value = getattr(module, attribute, None)
    if value is None:
        raise InputError(f"{kind}: {printable(source)} has no class {attribute!r}")
    return value


def _import(source: str) -> Any:
    if not all(part.isidentifier() for part in source.split(".")):
        raise InputError(
            f"expected FILE.py:Class or package.module:Class, got {printable(source)!r}"
        )
    return importlib.import_module(source)


def _import_file(path: Path) -> Any:
    """The module of a user's own file; files beside it can be imported from it."""
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"no such plug-in file: {printable(str(path))}")
    name = f"treerl_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the file is being run
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module


def _resolve(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
