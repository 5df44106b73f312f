"""Which of diffusers' attention backends a denoiser computes with."""

from typing import TYPE_CHECKING

from torch import nn

from treerl.errors import InputError, first_line, printable

if TYPE_CHECKING:
    from treerl.backbone.parts import PipelineParts

_CHOSEN = "_attention_backend"  # of a layer's processor, where diffusers asks for it


def choose_attention(backbone: "PipelineParts") -> None:
    """Let the denoisers compute attention as `backbone.attention` says.

    `InputError` where that is not to be had, or where diffusers would take the name and go on as
    before: layers of SD3, UNets, CogVideoX and Mochi always compute as torch does.
    """
    name = backbone.settings.attention
    if name is None:
        return
    if name.endswith("_hub"):  # code that nobody has installed, named by a file that is data
        raise InputError(
            f"backbone.attention: expected a backend that is installed, as {printable(name, 60)} "
            "downloads code and runs it"
        )
    for module in backbone.denoisers.values():
        kind = type(module).__name__
        if not any(map(_asks, module.modules())):
            raise InputError(f"backbone.attention: expected null, as {kind} has no choice of it")
        try:
            module.set_attention_backend(name)  # type: ignore[operator]
        except (ValueError, RuntimeError, ImportError) as error:
            raise InputError(
                f"backbone.attention: {printable(name, 60)} cannot be used: {first_line(error)}"
            ) from error


def _asks(module: nn.Module) -> bool:
    return hasattr(getattr(module, "processor", None), _CHOSEN)
