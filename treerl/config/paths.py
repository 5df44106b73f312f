"""The dotted paths of settings, and the likeliest one for a path that is unknown."""

import difflib
from collections.abc import Iterator
from typing import Any

from treerl import registry
from treerl.config.schema import Config
from treerl.config.section import Plugin, Section


def walk(section: type[Section], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths below a section, each with the `Section` or the field that stands there."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield f"{prefix}{name}", inner
            yield from walk(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


_ALL = dict(walk(Config))
SECTIONS: dict[str, type[Section]] = {path: at for path, at in _ALL.items() if isinstance(at, type)}
PLUGINS: dict[str, type[Plugin]] = {
    path: section for path, section in SECTIONS.items() if issubclass(section, Plugin)
}
FIELDS: dict[str, Any] = {path: at for path, at in _ALL.items() if path not in SECTIONS}


def hint(path: str) -> str:
    """The nearest known path: the same word in another section, else the most alike."""
    if path in _ALL:
        return f"write it nested, as --set {path}=... does"
    section, _, key = path[:200].rpartition(".")
    inside = [name for name in _ALL if name.rpartition(".")[0] == section]
    close = _alike(key, inside) or _alike(key, _ALL, cutoff=1.0)
    close = close or _alike(key, _defaults(), cutoff=1.0) or _alike(key, _ALL)
    if close is not None:
        return f"did you mean {close}?"
    alike = difflib.get_close_matches(path[:200], _ALL, n=1, cutoff=0.6)
    if alike:
        return f"did you mean {alike[0]}?"
    return f"known: {', '.join(inside or [name for name in _ALL if '.' not in name])}"


def _alike(key: str, paths: Any, cutoff: float = 0.6) -> str | None:
    """The path whose last word is most like this one."""
    last = {path.rpartition(".")[2]: path for path in reversed(list(paths))}
    close = difflib.get_close_matches(key, last, n=1, cutoff=cutoff)
    return last[close[0]] if close else None


def _defaults() -> Iterator[str]:
    """The parameters of the plug-ins of the defaults."""
    for path, plugin in PLUGINS.items():
        name = plugin.model_fields["name"].default
        for field in registry.fields(registry.parameters(plugin.kind, name)):
            yield f"{path}.{field}"
