"""All that training changes as one flat mapping of tensors: taken, kept by any file, put back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from treerl.engine.component import Component
from treerl.engine.parts import part_like, whole_on_first

Snapshot = dict[str, Tensor]  # "weights/NAME", "optimizer/NAME/MOMENT", "memory/PART/NAME"
_SHOWN = 3  # names that an error lists


def take(optimizer: torch.optim.Optimizer, components: Mapping[str, Component]) -> Snapshot:
    """What the optimizer moves, its moments, and what the parts of the algorithm have learned.

    The tensors are those in use, not copies. Parameters go by the names that the optimizer was
    given (`AdamW(module.named_parameters())`), or by their places. Of those that lie in parts on
    several processes rank 0 gets the whole; all call it.
    """
    names = _names(optimizer)
    parameters = _parameters(optimizer)
    tensors = {}
    for name, parameter in zip(names, parameters, strict=True):
        tensors[f"weights/{name}"] = whole_on_first(parameter.detach())
    for place, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            if value is not None:
                whole = whole_on_first(torch.as_tensor(value))
                tensors[f"optimizer/{names[place]}/{key}"] = whole
    for part, component in components.items():
        for key, value in component.state().items():
            tensors[f"memory/{part}/{key}"] = value
    return tensors


@torch.no_grad()
def put_back(
    tensors: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    components: Mapping[str, Component],
) -> None:
    """Take up what `take` gave, in place; `ValueError` when it is of other parameters or parts."""
    names = _names(optimizer)
    parameters = _parameters(optimizer)
    weights = _below("weights/", tensors)
    _refuse_others(set(names), set(weights))
    for name, parameter in zip(names, parameters, strict=True):
        if weights[name].shape != parameter.shape:
            got = tuple(weights[name].shape)
            raise ValueError(f"weights {name}: expected {tuple(parameter.shape)}, got {got}")
    state: dict[int, dict[str, Tensor]] = {}
    places = {name: place for place, name in enumerate(names)}
    for path, value in _below("optimizer/", tensors).items():
        name, _, key = path.rpartition("/")
        place = places[name]
        state.setdefault(place, {})[key] = part_like(parameters[place], value).clone()
    memories: dict[str, Snapshot] = {part: {} for part in components}
    for path, value in _below("memory/", tensors).items():
        part, _, key = path.partition("/")
        if part not in memories:
            raise ValueError(f"this algorithm has no {part}, whose memory was kept")
        memories[part][key] = value
    for part, component in components.items():
        component.restore(memories[part])
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    for name, parameter in zip(names, parameters, strict=True):
        parameter.copy_(part_like(parameter, weights[name]))


def _below(start: str, tensors: Mapping[str, Tensor]) -> Snapshot:
    found = {}
    for name, tensor in tensors.items():
        if name.startswith(start):
            found[name.removeprefix(start)] = tensor
    return found


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _names(optimizer: torch.optim.Optimizer) -> list[str]:
    names: list[str] = []
    for group in optimizer.param_groups:
        count = len(group["params"])
        numbered = [f"{len(names) + place:05d}" for place in range(count)]
        names += group.get("param_names", numbered)
    return names


def _refuse_others(wanted: set[str], present: set[str]) -> None:
    for what, names in (("it lacks", wanted - present), ("foreign", present - wanted)):
        if names:
            shown = ", ".join(sorted(names)[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise ValueError(f"weights of other parameters: {what} {shown}{more}")
