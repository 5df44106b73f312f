"""A frozen base in 8 or 4 bits: near the whole one, as small as predicted, or refused."""

import builtins
from typing import Any

import pytest
import torch
from test_backbones import CPU, family
from torch import Tensor, nn

from treerl.backbone import adapter, random_weights
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.quantized import Int8Linear, quantize, saved_bytes, whole_bytes
from treerl.backbone.settings import PipelineSettings
from treerl.backbone.unloaded import unloaded
from treerl.config.resolve import resolve
from treerl.engine.task import Task
from treerl.errors import InputError
from treerl.run import forecast
from treerl.run.forecast import Forecast

FAMILIES = ["sd35", "flux", "wan", "sd15"]
HOW = ["int8", "nf4"]
ERRORS = {"int8": 0.01, "nf4": 0.15}  # of a miniature's prediction, relative


def backbone(name: str, how: str | None, dtype: str = "float32") -> PipelineBackbone:
    """A miniature with fixed weights."""
    torch.manual_seed(0)
    kind = family(name)
    settings = PipelineSettings(model="miniature", dtype=dtype, device="cpu", quantize=how)  # type: ignore[arg-type]
    made: PipelineBackbone = kind.load(settings, CPU)
    return made


def predicted(made: PipelineBackbone, rows: int = 3) -> Tensor:
    draws = torch.randn(rows, *made.shape, generator=torch.Generator().manual_seed(1))
    condition = made.encode([Task("a red circle")] * rows)
    return made.predict(draws, torch.full((rows,), 500.0), condition, 1.0)


def held_bytes(module: nn.Module) -> int:
    """Bytes of all that the parameters of a module hold, scales included."""
    held = sum(part.scale.nbytes for part in module.modules() if isinstance(part, Int8Linear))
    for parameter in module.parameters():
        held += parameter.nbytes
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            levels = state.state2
            parts = (state.absmax, state.code, levels.absmax, levels.code, state.offset)
            held += sum(part.nbytes for part in parts)
    return held


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_quantized_model_predicts_nearly_the_same_and_is_as_small_as_foretold(
    name: str, how: str
) -> None:
    whole = backbone(name, None)
    before = sum(map(held_bytes, whole.denoisers.values()))
    saved = saved_bytes(whole.denoisers.values(), how)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = predicted(whole)
        few = backbone(name, how)
        held = sum(map(held_bytes, few.denoisers.values()))
        error = (predicted(few) - expected).norm() / expected.norm()
    assert held == before - saved
    assert 1e-5 < error < ERRORS[how]


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_a_plan_knows_how_small_it_gets(how: str) -> None:
    sets = ["backbone.model=random", "backbone.name=flux", "rewards.jpeg=1"]
    plain = Forecast.of(resolve(None, {}, sets))
    few = Forecast.of(resolve(None, {}, [*sets, f"backbone.quantize={how}"]))
    assert plain is not None and few is not None
    share = few.held.denoiser / plain.held.denoiser
    assert share == pytest.approx({"int8": 0.5, "nf4": 0.26}[how], abs=0.02)
    # its widest layer is whole in bfloat16 for a moment
    twice = 2 if how == "int8" else 1
    assert few.held.whole == twice * 2 * 6 * 3072 * 3072 and plain.held.whole == 0
    saved = plain.held.denoiser - few.held.denoiser
    if how == "nf4":  # a count of so large a model takes half a minute
        peaks = [made.at(1).phases["update"] for made in (plain, few)]
        assert peaks[1] == peaks[0] - saved + few.held.whole
    weights = []
    for made in (plain, few):
        size = family("flux").footprint(made.config.backbone.build()).model_bytes
        assert size is not None
        weights.append(size)
    assert weights[0] - weights[1] == saved


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["sd35", "flux", "wan"])
def test_a_row_does_not_depend_on_its_neighbours(name: str, how: str) -> None:
    made = backbone(name, how, "bfloat16")
    draws = torch.randn(4, *made.shape, generator=torch.Generator().manual_seed(1))
    draws[2:] *= 50  # outliers, which must not choose how others are rounded
    condition = made.encode([Task("a red circle")] * 4)
    time = torch.full((4,), 500.0)
    with torch.no_grad():
        together = made.predict(draws, time, condition, 1.0)
        draws[2:] /= 50
        others = made.predict(draws, time, condition, 1.0)
    assert torch.equal(together[:2], others[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_int8_layer_is_within_half_a_step_and_keeps_its_extremes(dtype: torch.dtype) -> None:
    layer = nn.Linear(64, 5, dtype=dtype)
    layer.weight.data[2] *= 0.001  # its scale is far below float16's normal numbers
    layer.weight.data[3] = 0  # a row of nothing has no scale
    few = Int8Linear(layer, CPU)
    stored = few.weight.float() * few.scale.float()
    steps = few.scale.float()
    assert bool(((stored - layer.weight.float()).abs() <= 0.51 * steps + 1e-30).all())
    assert bool((stored[3] == 0).all()) and int(few.weight.abs().max()) >= 126


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["true", "false"])
def test_a_plan_of_8_bits_is_what_a_model_in_8_bits_needs(
    checkpointing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["backbone.name=sd35", "backbone.model=miniature", "rewards.jpeg=1"]
    sets += ["backbone.height=64", "backbone.width=64", "backbone.device=cpu"]
    sets += [f"train.gradient_checkpointing={checkpointing}", "backbone.quantize=int8"]
    foretold = Forecast.of(resolve(None, {}, sets))

    def exchanged(kind: type[PipelineBackbone], settings: PipelineSettings) -> PipelineBackbone:
        made: PipelineBackbone = unloaded(kind, settings)  # type: ignore[assignment]
        quantize(made.denoisers.values(), "int8", torch.bfloat16, torch.device("meta"))
        for module in made.denoisers.values():
            module.requires_grad_(False)
        return made

    monkeypatch.setattr(forecast, "unloaded", exchanged)
    real = Forecast.of(resolve(None, {}, sets))
    assert foretold is not None and real is not None
    for phase in ("window", "tails", "update"):
        counted = real._count(phase, 2)
        # what a layer needs within itself is not seen in it, and is counted apart
        assert foretold._count(phase, 2) == pytest.approx(counted, rel=0.02)


def test_layers_are_exchanged_whoever_loads_them_and_never_in_silence() -> None:
    settings = PipelineSettings(model="miniature", device="cpu", quantize="int8")
    pipeline = random_weights.build(family("sd35"), "miniature", CPU, torch.float32)
    made = family("sd35")(pipeline, settings, CPU)  # as a `load` of one's own ends
    assert any(isinstance(part, Int8Linear) for part in made.pipeline.transformer.modules())
    with pytest.raises(InputError, match="has no linear layers"):
        quantize([nn.Conv2d(1, 1, 1)], "int8", torch.float32, CPU)


def test_what_cannot_be_is_refused() -> None:
    for sets, words in [
        (["train.trainable=full"], "weights of few bits do not train"),
        (["train.trainable=lora", "parallel.shard=true"], "cuts whole weights"),
    ]:
        with pytest.raises(InputError, match=words):
            resolve(None, {}, ["backbone.quantize=nf4", *sets])
    with pytest.raises(InputError, match=r"backbone\.quantize: expected"):
        resolve(None, {}, ["train.trainable=lora", "backbone.quantize=fp2"])


def test_a_machine_without_bitsandbytes_is_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = builtins.__import__

    def missing(name: str, *rest: Any, **others: Any) -> Any:
        if name.startswith("bitsandbytes"):
            raise ImportError("no such module")
        return original(name, *rest, **others)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"pip install 'bitsandbytes>=0\.50'"):
        quantize([nn.Sequential(nn.Linear(2, 2))], "nf4", torch.float32, CPU)
    settings = PipelineSettings(model="miniature", device="cpu", quantize="nf4")
    with pytest.raises(
        InputError, match=r"pip install 'bitsandbytes>=0\.50'"
    ):  # before it is loaded
        family("sd35").check_available(settings)


def test_layers_outside_of_blocks_stay_whole() -> None:
    made = backbone("flux", "nf4")
    whole = made.pipeline.transformer
    assert type(whole.x_embedder) is nn.Linear and type(whole.proj_out) is nn.Linear
    assert type(whole.transformer_blocks[0].attn.to_q).__name__ == "Linear4bit"
    assert whole_bytes([nn.Sequential(nn.Linear(3, 5), nn.Linear(2, 2))], "nf4") == 60
    assert not adapter.adapted(whole)
