"""A LoRA beside a base of few bits: trained soundly, never folded into it, and exported."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from processes import run_script
from test_backbones import CPU, backbone_of, config, family, session_of, trained
from test_export import saved
from test_quantized import HOW, backbone, predicted
from torch import Tensor

from treerl.backbone import exporting, lora, random_weights
from treerl.backbone.compiled import compile_blocks
from treerl.backbone.merged import merged
from treerl.backbone.quantized import Int8Linear
from treerl.errors import InputError
from treerl.run.export import export


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["sd35", "flux", "wan"])
def test_a_lora_trains_at_ratio_one_and_its_base_stays(name: str, how: str) -> None:
    sets = ["backbone.dtype=bfloat16", "train.gradient_checkpointing=true"]
    session = session_of(config(name, f"backbone.quantize={how}", *sets))
    learning = {id(parameter) for parameter in trained(session)}
    network = next(iter(session.backbone.denoisers.values()))
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    metrics = session.trainer.iterate(["a cat", "a dog"]).metrics
    # exactly 0 where a processor rounds a row alike wherever it stands in its batch
    assert metrics["ratio_deviation"] <= 1e-4 and metrics["grad_norm"] > 0
    moved = {
        id(value)
        for key, value in network.named_parameters()
        if not torch.equal(value, before[key])
    }
    assert moved and moved <= learning


@pytest.mark.parametrize("how", HOW)
def test_what_was_trained_on_few_bits_is_exported_and_draws_the_same(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", run_script)
    model = tmp_path / "model"
    random_weights.build(family("sd35"), "miniature", CPU, torch.float32).save_pretrained(model)
    chosen = config(
        "sd35", f"backbone.model={model}", f"backbone.quantize={how}", "evaluate.steps=2"
    )
    run = saved(backbone_of(chosen), chosen, tmp_path / "run")
    done = export(run, tmp_path / "out")
    assert done.kind == "LoRA" and done.difference <= 1e-4
    assert done.change is not None and done.change > 1e-4


@pytest.mark.parametrize("how", HOW)
def test_a_lora_is_not_folded_into_few_bits(how: str) -> None:
    made = backbone("sd35", how)
    for parameter in lora.attach(made, lora.Trainable(), None, seed=0):
        parameter.data += 0.05
    with torch.no_grad():
        beside = predicted(made)
        with merged(list(made.denoisers.values())):
            assert torch.allclose(predicted(made), beside, atol=1e-5)


@pytest.mark.parametrize("how", HOW)
def test_gradients_of_a_lora_are_those_on_the_weights_that_the_bits_stand_for(how: str) -> None:
    few = backbone("sd35", how)
    plain = backbone("sd35", None)
    networks = (few.pipeline.transformer, plain.pipeline.transformer)
    for layer, other in zip(*(network.modules() for network in networks), strict=True):
        if isinstance(layer, Int8Linear):
            other.weight.data = layer.weight.float() * layer.scale
        elif type(layer).__name__ == "Linear4bit":
            other.weight.data = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    gradients = []
    for made in (few, plain):
        parameters = lora.attach(made, lora.Trainable(), None, seed=0)
        for number, parameter in enumerate(parameters):
            generator = torch.Generator().manual_seed(number)
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
        loss = predicted(made).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append([parameter.grad for parameter in parameters])
    for here, there in zip(*gradients, strict=True):
        assert torch.allclose(here, there, rtol=1e-3, atol=1e-4 * float(there.abs().max()) + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [None, "aot_eager"])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")
def test_no_whole_weight_is_kept_for_the_backward_pass(how: str, backend: str | None) -> None:
    made = backbone("flux", how, "bfloat16")
    shapes = set()
    for layer in made.pipeline.transformer.modules():
        if isinstance(layer, Int8Linear) or type(layer).__name__ == "Linear4bit":
            shape = (layer.out_features, layer.in_features)
            shapes |= {shape, shape[::-1]}
    lora.attach(made, lora.Trainable(rank=2), None, seed=0)
    if backend is not None:
        torch._dynamo.reset()
        compile_blocks(made, "blocks", False, backend)
    whole: list[tuple[int, ...]] = []
    few: list[torch.dtype] = []

    def kept(tensor: Tensor) -> Tensor:
        if tensor.dtype in (torch.int8, torch.uint8):
            few.append(tensor.dtype)
        elif tensor.dim() == 2 and tuple(tensor.shape) in shapes:
            whole.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        prediction = predicted(made)
    loss = prediction.square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert not whole
    assert few or how == "nf4"  # which keeps its weights beside what autograd knows of


def test_a_lora_that_would_go_into_few_bits_is_not_exported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = backbone("sd35", "int8")
    made.settings = replace(made.settings, model="somebody's")
    exporting.check(made)
    monkeypatch.setattr(exporting, "_loads_lora", lambda pipeline: False)
    with pytest.raises(InputError, match="loads no LoRA"):
        exporting.check(made)
