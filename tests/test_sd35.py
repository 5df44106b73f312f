"""The backbone sd35 is the diffusers pipeline, step by step, and it fits the engine."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from torch import Tensor

import treerl
from treerl.backbone import adapter, lora
from treerl.backbone.env import BackboneEnv, EnvSettings
from treerl.backbone.pipeline import PipelineBackbone
from treerl.backbone.settings import PipelineSettings
from treerl.config.resolve import resolve
from treerl.engine import noise
from treerl.engine.branching import ode, window
from treerl.engine.grow import grow
from treerl.engine.kernel import ODE, FlowSDE
from treerl.engine.roots import make_roots
from treerl.engine.schedule import Flow
from treerl.engine.tree import Tree
from treerl.errors import InputError
from treerl.run.assemble import build

PROMPTS = ["a red circle on the left", "a blue cross at the top", "a green square in the centre"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone() -> PipelineBackbone:
    loaded: PipelineBackbone = treerl.load("backbones", "sd35").load(
        PipelineSettings(max_sequence_length=1), CPU
    )
    return loaded


def environment(
    backbone: PipelineBackbone, steps: int = 10, guidance: float = 1.0, dtype: str = "float32"
) -> BackboneEnv:
    settings = EnvSettings(
        steps=steps, guidance=guidance, latent_dtype=dtype, latent_device="device", rows=24
    )
    env: BackboneEnv = treerl.load("envs", "denoising").make(backbone, FlowSDE(0.7), settings)
    return env.with_tasks(PROMPTS)


def forest(env: BackboneEnv, steps: int, rows: int = 3, order: list[int] | None = None) -> Tree:
    keys = [noise.key(0, row) for row in order or range(len(PROMPTS))]
    return grow(env, make_roots(keys, 1), window(steps, 1, 2, 3), rows)


def pipeline(
    backbone: PipelineBackbone, latents: Tensor, guidance: float, steps: int, output: str
) -> Tensor:
    call: StableDiffusion3Pipeline = backbone.pipeline
    images: Tensor = call(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        max_sequence_length=1,
        latents=latents,
        output_type=output,
    ).images
    return images


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("steps", [4, 10])
def test_the_ode_path_equals_the_diffusers_pipeline_on_the_same_latents(
    backbone: PipelineBackbone, guidance: float, steps: int
) -> None:
    env = environment(backbone, steps, guidance)
    roots = make_roots([noise.key(0, row) for row in range(3)], 1)
    tree = grow(env, roots, ode(steps), rows=3)
    latents = noise.normal(roots.start, env.shape, torch.float32)
    expected = pipeline(backbone, latents, guidance, steps, "latent")
    leaves = tree.at(tree.leaves)
    torch.testing.assert_close(leaves.x, expected, atol=1e-5, rtol=0)
    images = pipeline(backbone, latents, guidance, steps, "pt")
    torch.testing.assert_close(env.samples(leaves).images, images, atol=1e-5, rtol=0)


def test_a_stochastic_kernel_with_zero_noise_is_the_ode(backbone: PipelineBackbone) -> None:
    schedule = backbone.schedule(10)
    silent = FlowSDE(noise_level=0.0).coefficients(schedule)
    plain = ODE().coefficients(schedule)
    assert torch.equal(silent.state, plain.state) and torch.equal(silent.std, plain.std)
    torch.testing.assert_close(silent.prediction, plain.prediction, atol=1e-15, rtol=0)


def test_the_schedule_is_the_pipelines_own(backbone: PipelineBackbone) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(backbone.pipeline.scheduler.config)
    scheduler.set_timesteps(10)
    schedule = backbone.schedule(10)
    assert isinstance(schedule, Flow)
    assert torch.equal(schedule.sigma, scheduler.sigmas.double())
    assert torch.equal(schedule.time, scheduler.timesteps)


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
def test_the_ratio_on_replay_is_exactly_one_with_one_row_count(
    backbone: PipelineBackbone, storage: str
) -> None:
    env = environment(backbone, dtype=storage)
    tree = forest(env, 10)
    edges = tree.edges[torch.randperm(len(tree.edges), generator=torch.Generator().manual_seed(0))]
    for part in torch.split(edges, 3):
        policy = env.policy(tree.at(tree.parent[part]), stochastic=True)
        scored = policy.log_prob(tree.at(part).x).double()
        assert torch.equal(scored, tree.log_prob[part])


def test_the_same_seed_gives_the_same_tree_whatever_the_rows(backbone: PipelineBackbone) -> None:
    env = environment(backbone)
    one = forest(env, 10, rows=3)
    other = forest(env, 10, rows=8)
    assert torch.equal(one.key, other.key)
    # the noise is equal to the bit; matrix products of another height round otherwise
    torch.testing.assert_close(one.x, other.x, atol=1e-3, rtol=0)
    assert float((one.x - other.x).abs().median()) < 1e-6


def test_the_same_seed_gives_the_same_tree_whatever_the_order_of_prompts(
    backbone: PipelineBackbone,
) -> None:
    env = environment(backbone)
    one = forest(env, 10)
    order = [2, 0, 1]
    other = forest(env.with_tasks([PROMPTS[row] for row in order]), 10, order=order)
    for place, row in enumerate(order):
        mine = one.leaves[one.task[one.leaves] == row]
        theirs = other.leaves[other.task[other.leaves] == place]
        assert torch.equal(one.at(mine).x, other.at(theirs).x)


def test_gradients_reach_every_trainable_weight_and_no_other() -> None:
    backbone: PipelineBackbone = treerl.load("backbones", "sd35").load(
        PipelineSettings(max_sequence_length=1), CPU
    )
    trained = lora.attach(backbone, lora.Trainable(), None, seed=0)
    with torch.no_grad():  # a fresh LoRA has B = 0, which would hide A's gradient
        for parameter in trained:
            parameter.add_(0.01)
    env = environment(backbone)
    tree = forest(env, 10)
    policy = env.policy(tree.at(tree.parent[tree.edges[:3]]), stochastic=True)
    policy.mode.square().sum().backward()  # type: ignore[no-untyped-call]
    known = {id(parameter) for parameter in trained}
    names = set()
    reached = set()
    others = []
    for name, parameter in backbone.denoisers["transformer"].named_parameters():
        if id(parameter) in known:
            names.add(name)
        else:
            others.append(parameter)
        if parameter.grad is not None and bool(parameter.grad.any()):
            reached.add(name)
    # the last block drops the text after its attention: nothing depends on its queries there
    last = len(backbone.pipeline.transformer.transformer_blocks) - 1
    assert names - reached == {name for name in names if f"blocks.{last}.attn.add_q_proj" in name}
    assert others and all(parameter.grad is None for parameter in others)


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_what_is_saved_is_what_is_restored(
    tmp_path: Path, weights: Literal["lora", "full"]
) -> None:
    load = treerl.load("backbones", "sd35").load
    first: PipelineBackbone = load(PipelineSettings(max_sequence_length=1), CPU)
    train = lora.Trainable(mode=weights)
    with torch.no_grad():
        for parameter in lora.attach(first, train, None, seed=0):
            parameter.add_(0.02)
    first.save(tmp_path)
    second: PipelineBackbone = load(PipelineSettings(max_sequence_length=1), CPU)
    lora.attach(second, train, tmp_path, seed=1)
    tree = forest(environment(first), 10)
    again = forest(environment(second), 10)
    assert torch.equal(tree.x, again.x)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^backbone.model: .* cannot be loaded as Stable Diffusion 3"
    ):
        treerl.load("backbones", "sd35").load(PipelineSettings(model=str(tmp_path)), CPU)
    with pytest.raises(
        InputError, match=r"^backbone.height, backbone.width: expected multiples of 8, got 36x32"
    ):
        treerl.load("backbones", "sd35").load(PipelineSettings(height=36, width=32), CPU)
    with pytest.raises(InputError, match=r"^backbone.adapter: "):
        loaded = treerl.load("backbones", "sd35").load(PipelineSettings(), CPU)
        lora.attach(loaded, lora.Trainable(), tmp_path, seed=0)


def test_a_lora_cannot_be_trained_on_as_full_weights(tmp_path: Path) -> None:
    load = treerl.load("backbones", "sd35").load
    first: PipelineBackbone = load(PipelineSettings(max_sequence_length=1), CPU)
    lora.attach(first, lora.Trainable(), None, seed=0)
    first.save(tmp_path)
    with pytest.raises(
        InputError, match=r"^train.trainable: expected lora, as backbone.adapter .* is a LoRA"
    ):
        lora.attach(
            load(PipelineSettings(max_sequence_length=1), CPU),
            lora.Trainable(mode="full"),
            tmp_path,
            seed=0,
        )


@pytest.mark.parametrize("name", [adapter.FILE, "transformer/model.safetensors"])
def test_an_adapter_that_cannot_be_read_is_refused(
    backbone: PipelineBackbone, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("junk")
    with pytest.raises(InputError, match=r"^backbone.adapter: .* does not fit this model: "):
        backbone.restore(tmp_path)


@pytest.mark.parametrize("size", [(128, 128), (64, 72)])
def test_a_size_beyond_the_positions_of_the_model_is_refused(size: tuple[int, int]) -> None:
    expected = "backbone.height, backbone.width: expected at most 64 pixels a side"
    with pytest.raises(InputError, match=expected):
        build(resolve(None, {"backbone.height": size[0], "backbone.width": size[1]}, []))
