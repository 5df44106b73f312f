"""A frozen base in 8 or 4 bits: the linear layers in the blocks of the denoisers."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, library, nn

from treerl.backbone.blocks import blocks
from treerl.errors import InputError, first_line

Quantize = Literal["int8", "nf4"]

_GROUP = 64  # weights of a layer that share a scale in nf4
_SCALES = 256  # scales that share one of their own


class Int8Linear(nn.Linear):
    """A frozen linear layer with 8 bits a weight, and a scale for each output.

    Activations keep all their bits: rounded to 8, as LLM.int8() does it (arXiv 2208.07339), they
    would jump where the input moves by a rounding error, and replayed densities with them.
    """

    scale: Tensor  # [out, 1], in the dtype of the model

    def __init__(self, layer: nn.Linear, device: torch.device) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        weight = layer.weight.data.to(device)
        # rounded first, so that what is stored is a multiple of what it is multiplied with
        largest = weight.abs().amax(1, keepdim=True)
        scale = largest / 127
        # and rounded up: the smallest of float16 are far apart
        above = torch.nextafter(scale, torch.full_like(scale, torch.inf))
        scale = torch.where(127 * scale.float() < largest.float(), above, scale)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # of a row of zeros
        whole = (weight.float() / scale.float()).round().clamp(-127, 127).to(torch.int8)
        self.weight = nn.Parameter(whole, requires_grad=False)
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.data.to(device), requires_grad=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        product: Tensor = _forward(input, self.weight, self.scale)
        return product if self.bias is None else product + self.bias


# Opaque to a compiler: seen through, the product of weight and scale would be computed once and
# kept for the backward pass, and the model with it.
@library.custom_op("treerl::int8_linear", mutates_args=())
def _forward(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x · (scale · W)ᵀ."""
    return nn.functional.linear(x, weight.to(scale.dtype) * scale)


@library.custom_op("treerl::int8_linear_backward", mutates_args=())
def _backward(gradient: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return gradient @ (weight.to(scale.dtype) * scale)


@_forward.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@_backward.register_fake
def _(gradient: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return gradient.new_empty(*gradient.shape[:-1], weight.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return _backward(gradient, *ctx.saved_tensors), None, None


_forward.register_autograd(_gradients, setup_context=_keep)


def quantize(
    modules: Iterable[nn.Module], how: Quantize, dtype: torch.dtype, device: torch.device
) -> None:
    """Exchange the linear layers of the blocks for such of few bits, which come to `device`.

    `nf4` is QLoRA's (arXiv 2305.14314) with scales in 8 bits, through bitsandbytes. `InputError`
    where that is missing or cannot be used, and where there is no such layer.
    """
    modules = list(modules)
    if not any(True for module in modules for _ in _layers(module)):
        kinds = ", ".join(type(module).__name__ for module in modules)
        raise InputError(f"backbone.quantize: expected null, as {kinds} has no linear layers")
    layers = bitsandbytes() if how == "nf4" else None
    for module in modules:
        for owner, name in [place[:2] for place in _layers(module)]:  # none is kept alive
            layer = getattr(owner, name)
            if how == "int8":
                setattr(owner, name, Int8Linear(layer, device))
                continue
            try:
                setattr(owner, name, _nf4(layers, layer, dtype).to(device))
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, NotImplementedError, ValueError) as error:
                raise InputError(
                    f"backbone.quantize: nf4 cannot be used on {device}: {first_line(error)}"
                ) from error


def saved_bytes(modules: Iterable[nn.Module], how: Quantize) -> int:
    """By how much the weights of modules shrink; they may be on the meta device."""
    saved = 0
    for module in modules:
        for _, _, layer in _layers(module):
            saved += layer.weight.nbytes - _few_bytes(layer.weight, how)
    return saved


def whole_bytes(modules: Iterable[nn.Module], how: Quantize) -> int:
    """Bytes of the largest layer as a forward computes with it: one is whole at a time.

    `int8` needs it twice, before it is multiplied by its scale and after.
    """
    sizes = [layer.weight.nbytes for module in modules for _, _, layer in _layers(module)]
    return max(sizes, default=0) * (2 if how == "int8" else 1)


def _few_bytes(weight: Tensor, how: Quantize) -> int:
    if how == "int8":
        return weight.numel() + weight.shape[0] * weight.element_size()
    groups = -(-weight.numel() // _GROUP)
    scales = groups + 4 * -(-groups // _SCALES)
    # sixteen levels for the weights, 256 for their scales, and the scales' mean
    return -(-weight.numel() // 2) + scales + 4 * (16 + 256 + 1)


def _layers(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Each linear layer of the blocks (of all where there are none) with its owner and its name."""
    met = set()
    for part in blocks(module) or [module]:
        for owner in part.modules():
            for name, layer in owner.named_children():
                if type(layer) is nn.Linear and layer not in met:
                    met.add(layer)
                    yield owner, name, layer


def _nf4(layers: Any, layer: nn.Linear, dtype: torch.dtype) -> nn.Module:
    few: nn.Module = layers.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=dtype,
        quant_type="nf4",
        device="meta",
    )
    few.weight = layers.Params4bit(
        layer.weight.data,
        requires_grad=False,
        blocksize=_GROUP,
        compress_statistics=True,
        quant_type="nf4",
    )
    few.bias = layer.bias
    # on some CPUs it would pack its weights in a way that has no gradient, at any forward without
    few.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return few


def bitsandbytes() -> Any:
    """Its layers; `InputError` where it is missing."""
    try:
        import bitsandbytes.nn
    except ImportError as error:
        raise InputError(
            "backbone.quantize: nf4 needs bitsandbytes: pip install 'bitsandbytes>=0.50' "
            f"({first_line(error)})"
        ) from error
    return bitsandbytes.nn
