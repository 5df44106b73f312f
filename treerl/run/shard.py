"""A model that does not fit on one device: every denoiser cut into parts, one a process."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from treerl.backbone.blocks import blocks
from treerl.errors import InputError, first_line
from treerl.run.world import World


def cutter(world: World, device: torch.device) -> Callable[[nn.Module], None]:
    """What cuts a module, which may be on the CPU, into parts on the `device` of each process.

    From now on a forward of this model is one of all processes.
    """
    if world.size == 1:
        raise InputError(
            "parallel.shard: expected false, as one process holds the whole model, got true; "
            "start several, as by --devices"
        )
    world.sharded = True
    mesh = init_device_mesh(device.type, (world.size,))
    return partial(cut, mesh=mesh)


def cut(module: nn.Module, mesh: DeviceMesh) -> None:
    """Leave this process a part of each weight; a block is whole while it computes."""
    name = type(module).__name__
    parts = [*blocks(module), module]
    if len(parts) == 1:
        raise InputError(
            f"parallel.shard: expected false, as {name} is no transformer whose blocks stand in a "
            "list or in its _no_split_modules, got true"
        )
    try:
        for part in parts:
            # the outermost, too, gives back what it gathered: else its weights would be others than
            # those that the optimizer holds whenever a forward was the last that happened
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
    except (ValueError, NotImplementedError) as error:
        raise InputError(
            f"parallel.shard: expected false, as {name} cannot be cut: {first_line(error)}"
        ) from error
    for part in parts:
        assert isinstance(part, FSDPModule)
        # losses are weighted among all processes: gradients are sums; neither call is recursive
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        kind = type(part)
        kind.__name__ = kind.__mro__[2].__name__  # which diffusers writes into config.json


@contextmanager
def readable(denoisers: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """While inside, denoisers in parts tell the whole weights of a trainer's state as their own:
    the averages, where it has some.

    That is what `state_dict()` gives. Nothing travels: one process writes what all gathered before.
    """
    with ExitStack() as stack:
        for title, module in denoisers.items():
            if isinstance(module, FSDPModule):
                fill = partial(_fill, _wholes(module, title, tensors))
                handle = module.register_state_dict_post_hook(fill)  # type: ignore[no-untyped-call]
                stack.callback(handle.remove)
        yield


def _wholes(module: nn.Module, title: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained weights, or their average, by every name that they have in the module."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    wholes = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        trained = tensors.get(f"average/{title}.{names[parameter]}")
        if trained is None:
            trained = tensors.get(f"weights/{title}.{names[parameter]}")
        if trained is not None:
            wholes[name] = trained
    return wholes


def _fill(
    wholes: Mapping[str, Tensor], module: nn.Module, state: dict[str, Any], prefix: str, _: Any
) -> None:
    for name, tensor in wholes.items():
        state[prefix + name] = tensor
