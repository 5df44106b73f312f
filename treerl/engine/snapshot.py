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
    parameters = named_parameters(optimizer)
    names = list(parameters)
    tensors = {}
    for name, parameter in parameters.items():
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
    parameters = named_parameters(optimizer)
    weights = _below("weights/", tensors)
    _refuse_others(set(parameters), set(weights))
    for name, parameter in parameters.items():
        if weights[name].shape != parameter.shape:
            got = tuple(weights[name].shape)
            raise ValueError(f"weights {name}: expected {tuple(parameter.shape)}, got {got}")
    state: dict[int, dict[str, Tensor]] = {}
    places = {name: place for place, name in enumerate(parameters)}
    for path, value in _below("optimizer/", tensors).items():
        name, _, key = path.rpartition("/")
        place = places[name]
        state.setdefault(place, {})[key] = part_like(parameters[name], value).clone()
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
    for name, parameter in parameters.items():
        parameter.copy_(part_like(parameter, weights[name]))


def _below(start: str, tensors: Mapping[str, Tensor]) -> Snapshot:
    parts = {}
    for name, tensor in tensors.items():
        if name.startswith(start):
            parts[name.removeprefix(start)] = tensor
    return parts


def named_parameters(optimizer: torch.optim.Optimizer) -> dict[str, torch.nn.Parameter]:
    """What the optimizer moves, by the names that it was given or else by place, in its order."""
    named: dict[str, torch.nn.Parameter] = {}
    for group in optimizer.param_groups:
        numbered = [f"{len(named) + place:05d}" for place in range(len(group["params"]))]
        names = group.get("param_names", numbered)
        named |= dict(zip(names, group["params"], strict=True))
    return named


def _refuse_others(wanted: set[str], present: set[str]) -> None:
    for what, names in (("it lacks", wanted - present), ("foreign", present - wanted)):
        if names:
            shown = ", ".join(sorted(names)[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise ValueError(f"weights of other parameters: {what} {shown}{more}")
