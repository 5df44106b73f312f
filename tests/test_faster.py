"""Faster forwards: a LoRA in the model's dtype, folded where it may be, and compiled blocks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from plain_torch import Points
from test_backbones import CPU, backbone_of, config, session_of, trained
from torch import Tensor, nn

from treerl.backbone import adapter, lora
from treerl.backbone.blocks import blocks
from treerl.backbone.compiled import compile_blocks
from treerl.backbone.contract import Backbone
from treerl.check.subject import Subject, apart
from treerl.errors import InputError
from treerl.run.session import Session

FAMILIES = ("sd35", "flux", "wan")
# torch's compiler asks tensors for their gradients itself
TRACED = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def adapted(dtype: str = "float32", merge: bool = True, name: str = "sd35") -> Backbone:
    """A miniature with a LoRA that says something."""
    backbone: Backbone = backbone_of(config(name, f"backbone.dtype={dtype}"))
    parameters = lora.attach(backbone, lora.Trainable(rank=2, merge=merge), None, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone


def layers(backbone: Backbone) -> list[Any]:
    return [part for net in backbone.denoisers.values() for part in adapter.layers(net).values()]


@contextmanager
def counted(backbone: Backbone) -> Iterator[list[torch.dtype]]:
    """The dtypes of what the LoRA matrices gave while inside."""
    met: list[torch.dtype] = []

    def seen(module: nn.Module, inputs: Any, output: Tensor) -> None:
        met.append(output.dtype)

    handles = []
    for layer in layers(backbone):
        for matrix in (*layer.lora_A.values(), *layer.lora_B.values()):
            handles.append(matrix.register_forward_hook(seen))
    yield met
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_lora_computes_in_the_models_dtype_and_learns_in_float32(dtype: str) -> None:
    backbone = adapted(dtype)
    subject = Subject(lambda: backbone)
    with counted(backbone) as met:
        subject.predict().square().mean().backward()  # type: ignore[no-untyped-call]
    assert met and set(met) == {getattr(torch, dtype)}
    weights = [layer.lora_B[adapter.NAME].weight for layer in layers(backbone)]
    assert {weight.dtype for weight in weights} == {torch.float32}
    learning = [weight.grad for weight in weights if bool(weight.grad.any())]
    assert len(learning) > len(weights) / 2  # what the last block makes of the text is not used
    assert {gradient.dtype for gradient in learning} == {torch.float32}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folded_lora_predicts_the_same_without_its_matrices(name: str) -> None:
    backbone = adapted(name=name)
    subject = Subject(lambda: backbone)
    with torch.no_grad(), lora.reference(backbone):
        bare = subject.predict()
    before = [layer.get_base_layer().weight.detach().clone() for layer in layers(backbone)]
    with torch.no_grad():
        plain = subject.predict()
        with backbone.faster(), counted(backbone) as met:
            folded = subject.predict()
        again = subject.predict()
    assert met == [] and torch.equal(again, plain)
    assert apart(folded, plain) < 1e-5 < 1e-3 < apart(bare, plain)
    for layer, weight in zip(layers(backbone), before, strict=True):
        assert torch.equal(layer.get_base_layer().weight, weight)
        assert not layer.disable_adapters
    assert all(parameter.requires_grad for parameter in _matrices(backbone))


def test_an_error_inside_unfolds_the_lora() -> None:
    backbone = adapted()
    subject = Subject(lambda: backbone)
    with torch.no_grad():
        plain = subject.predict()
        with pytest.raises(KeyboardInterrupt), backbone.faster():
            raise KeyboardInterrupt
        assert torch.equal(subject.predict(), plain)


def test_only_levels_without_densities_are_walked_with_a_folded_lora() -> None:
    session = _session("sd35")
    met: list[tuple[bool, bool]] = []
    env = session.trainer.env
    layer = layers(session.backbone)[0]
    plain = type(env).policy

    def policy(self: Any, state: Any, stochastic: bool) -> Any:
        met.append((stochastic, bool(layer.disable_adapters)))
        return plain(self, state, stochastic)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(env), "policy", policy)
        session.trainer.iterate(["a cat", "a dog"])
    assert set(met) == {(True, False), (False, True)}
    met.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(env), "policy", policy)
        session.evaluate(["a cat"])
    assert set(met) == {(False, True)}


def test_a_trunk_and_its_tails_fold_once_each() -> None:
    session = _session("sd35")
    folded: list[bool] = []
    faster = session.backbone.faster

    @contextmanager
    def counted_folds() -> Iterator[None]:
        folded.append(True)
        with faster():
            yield
        folded.append(False)

    session.backbone.faster = counted_folds
    session.trainer.iterate(["a cat", "a dog"])  # a trunk of one step, a window of two, a tail
    assert folded == [True, False] * 2
    folded.clear()
    session.evaluate(["a cat"])
    assert folded == [True, False]


def test_a_lora_may_stay_unfolded() -> None:
    backbone = adapted(merge=False)
    with backbone.faster(), counted(backbone) as met, torch.no_grad():
        Subject(lambda: backbone).predict()
    assert met


@pytest.mark.slow
@TRACED
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_ratio_is_one_in_bfloat16_folded_and_compiled(name: str, compiled: bool) -> None:
    session = _session(name, "backbone.dtype=bfloat16", "train.learning_rate=1e-3")
    if compiled:  # the graphs as inductor gets them, which takes a minute more on two cores
        compile_blocks(session.backbone, "blocks", False, backend="aot_eager")
    before = [parameter.detach().clone() for parameter in trained(session)]
    for _ in range(2):
        metrics = session.trainer.iterate(["a cat", "a dog"]).metrics
        assert metrics["ratio_deviation"] == 0 and metrics["grad_norm"] > 0
    pairs = zip(before, trained(session), strict=True)
    assert any(not torch.equal(old, new) for old, new in pairs)


@TRACED
def test_compiled_window_forwards_are_those_of_the_update() -> None:
    session = _session("sd35")
    compile_blocks(session.backbone, "blocks", False, backend="eager")
    modes: list[tuple[bool, bool]] = []
    real = session.backbone.predict

    def predict(*arguments: Any) -> Tensor:
        modes.append((torch.is_grad_enabled(), not layers(session.backbone)[0].disable_adapters))
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.backbone, "predict", predict)
        step = session.trainer.iterate(["a cat", "a dog"])
    assert set(modes) == {(True, True), (False, False)}
    assert not step.tree.x.requires_grad and not step.tree.log_prob.requires_grad


def test_on_a_cpu_nothing_is_compiled_unasked() -> None:
    backbone = adapted()
    compile_blocks(backbone, "auto", False)
    assert not backbone.compiled
    compile_blocks(backbone, "blocks", False, backend="eager")
    assert backbone.compiled
    for module in backbone.denoisers.values():
        assert all(block._compiled_call_impl is not None for block in blocks(module))


def test_what_cannot_be_compiled_is_refused() -> None:
    points = Points(8, CPU)
    compile_blocks(points, "auto", False)
    with pytest.raises(InputError, match=r"backbone.compile: .* as Points has no blocks"):
        compile_blocks(points, "blocks", False)
    with pytest.raises(InputError, match=r"backbone.compile: .* with parallel.shard, got blocks"):
        compile_blocks(adapted(), "blocks", True)


def test_an_attention_backend_is_named_or_refused() -> None:
    native = backbone_of(config("flux", "backbone.attention=native"))
    plain = backbone_of(config("flux"))
    both = [Subject(lambda one=one: one).predict() for one in (native, plain)]  # type: ignore[misc]
    assert apart(*both) < 1e-5
    with pytest.raises(InputError, match=r"^backbone.attention: fast cannot be used: .*native"):
        backbone_of(config("flux", "backbone.attention=fast"))
    with pytest.raises(InputError, match=r"^backbone.attention: .* downloads code and runs it"):
        backbone_of(config("flux", "backbone.attention=sage_hub"))


@pytest.mark.parametrize("name", ["sd35", "sd15", "cogvideox", "mochi"])
def test_a_backend_that_a_model_would_not_ask_for_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^backbone.attention: expected null, as \w+ has no cho"):
        backbone_of(config(name, "backbone.attention=native"))


def _session(name: str, *sets: str) -> Session:
    window = ("start=1", "depth=2", "branching_factor=2")
    tree = ["tree.branching=fixed"]
    tree += [f"tree.branching.{setting}" for setting in window]
    return session_of(config(name, *tree, *sets))


def _matrices(backbone: Backbone) -> list[nn.Parameter]:
    found = []
    for layer in layers(backbone):
        found += [*layer.lora_A.parameters(), *layer.lora_B.parameters()]
    return found
