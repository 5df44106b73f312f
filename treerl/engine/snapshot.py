"""All that training changes as one flat mapping of tensors: taken, kept by any file, put back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from treerl.engine.component import Component
from treerl.engine.parts import in_parts, of_part, part_like, part_of, whole_on_first

# "weights/NAME", "optimizer/NAME/MOMENT", "memory/PART/NAME"; of a moment that lies in parts on
# several processes each has "part/optimizer/NAME/MOMENT"
Snapshot = dict[str, Tensor]
PART = "part/"
_SHOWN = 3  # names that an error lists


def take(optimizer: torch.optim.Optimizer, components: Mapping[str, Component]) -> Snapshot:
    """What the optimizer moves, its moments, and what the parts of the algorithm have learned.

    The tensors are those in use, not copies. Parameters go by the names that the optimizer was
    given (`AdamW(module.named_parameters())`), or by their places. Of weights that lie in parts on
    several processes rank 0 gets the whole, as others are to read them; of their moments, which are
    twice as many numbers, each process gives its part. All call it.
    """
    parameters = named_parameters(optimizer)
    names = list(parameters)
    tensors = {}
    for name, parameter in parameters.items():
        tensors[f"weights/{name}"] = whole_on_first(parameter.detach())
    for place, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            path = f"optimizer/{names[place]}/{key}"
            if value is None:
                continue
            if in_parts(value):
                tensors[PART + path] = part_of(value)
            else:
                tensors[path] = torch.as_tensor(value)
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
    _refuse_others(set(parameters), set(_below("weights/", tensors)))
    state: dict[int, dict[str, Tensor]] = {}
    places = {name: place for place, name in enumerate(parameters)}
    for start in ("optimizer/", f"{PART}optimizer/"):
        for path in _below(start, tensors):
            name, _, key = path.rpartition("/")
            value = tensors[start + path]
            belongs = of_part if start.startswith(PART) else part_like
            state.setdefault(places[name], {})[key] = belongs(parameters[name], value).clone()
    memories: dict[str, Snapshot] = {part: {} for part in components}
    for path in _below("memory/", tensors):
        part, _, key = path.partition("/")
        if part not in memories:
            raise ValueError(f"this algorithm has no {part}, whose memory was kept")
        memories[part][key] = tensors[f"memory/{path}"]
    values = {}
    for name, parameter in parameters.items():
        weights = tensors[f"weights/{name}"]
        if weights.shape != parameter.shape:
            got = tuple(weights.shape)
            raise ValueError(f"weights {name}: expected {tuple(parameter.shape)}, got {got}")
        values[name] = part_like(parameter, weights)
    for part, component in components.items():
        component.restore(memories[part])
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def _below(start: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """Names alone: tensors may be read from a file one by one, when they are asked for."""
    return [name.removeprefix(start) for name in tensors if name.startswith(start)]


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
