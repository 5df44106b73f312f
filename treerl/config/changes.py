"""What a configuration changes of the one that a run began with, and whether it may."""

from collections.abc import Mapping
from typing import Any

from treerl.config.schema import Config
from treerl.errors import InputError, shorten, shown

# the run stays the same run: how long it goes on, what is kept, what it may wait for
FREE = (
    "output",
    "train.iterations",
    "train.save_every",
    "train.keep_last",
    "train.keep_best",
    "train.guard",
    "scoring",
    "parallel",
)
# other figures from here on, but nothing that was learned loses its meaning
TOLD = (
    "train.learning_rate",
    "train.weight_decay",
    "train.adam_epsilon",
    "train.max_grad_norm",
    "train.threads",
    "train.gradient_checkpointing",
    "backbone.device",
    "evaluate.every",
)
_MISSING = object()


def changes(began: Config, now: Config) -> dict[str, str]:
    """Settings that differ and may, by dotted path: "old -> new"; `InputError` for all others."""
    old = _flat(began.model_dump())
    new = _flat(now.model_dump())
    told = {}
    refused = []
    for path in sorted(old.keys() | new.keys()):
        was = old.get(path, _MISSING)
        becomes = new.get(path, _MISSING)
        if was == becomes or _under(path, FREE):
            continue
        if _under(path, TOLD):
            told[path] = f"{_text(was)} -> {_text(becomes)}"
        else:
            refused.append(
                f"--resume: {shown(path)}: expected {_text(was)}, as the run began with it, got "
                f"{_text(becomes)}"
            )
    if refused:
        raise InputError("\n".join(refused))
    return told


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            values |= _flat(value, f"{path}.")
        else:
            values[path] = value
    return values


def _under(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(f"{root}.") for root in roots)


def _text(value: Any) -> str:
    return "nothing" if value is _MISSING else shorten(value)
