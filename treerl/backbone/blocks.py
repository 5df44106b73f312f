"""The repeated blocks of a denoiser: what is cut into parts, and what is compiled."""

from torch import nn


def blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer, inner ones first; none of a module without.

    They are the classes that it names in `_no_split_modules`, as models of diffusers do, or else
    the members of its outermost lists.
    """
    names = getattr(module, "_no_split_modules", None) or ()
    inside = list(module.modules())[1:]
    chosen = [part for part in inside if type(part).__name__ in names]
    return (chosen or _members(module))[::-1]  # a module comes before those in it


def _members(module: nn.Module) -> list[nn.Module]:
    members: list[nn.Module] = []
    for part in module.children():
        members += list(part) if isinstance(part, nn.ModuleList) else _members(part)
    return members
