"""The models that `card.py` measures: their settings, a mid-size one, and a reward for them."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
from full_size import SMALL, TOWER, Tower

import treerl
from treerl.backbone.pipeline import PipelineBackbone
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.reward.rewards import Rewards
from treerl.run.assemble import build
from treerl.run.session import Session

WIDTH = 512  # of `mid`
LAYERS = 11
# the tiny model's pictures and prompts, a LoRA as on the published one
MID = (
    "backbone.dtype=float32",
    "backbone.height=null",
    "backbone.width=null",
    "backbone.max_sequence_length=1",
    "env.guidance=1",
    "train.micro_batch_size=9",
    "train.gradient_checkpointing=false",
    "data.builtin=shapes",
    "rewards={shapes: 1}",
)


def configured(options: Namespace, folder: Path) -> Config:
    """The configuration that the options describe; `folder` is for a model that is made."""
    model = options.model or ("random" if torch.cuda.is_available() else "tiny")
    options.model = model
    prompts = options.prompts or (8 if model == "tiny" else 2)
    sets = [f"train.prompts_per_iteration={prompts}"]
    if model == "mid":
        save_mid(folder)
        sets += MID
    elif model != "tiny":
        sets.append("rewards={jpeg: 1}")
    if model in ("mid", "random"):
        sets.append("train.trainable=lora")
    if model == "random":
        sets.append("backbone.dtype=bfloat16")
    if options.size:
        sets += [f"backbone.height={options.size}", f"backbone.width={options.size}"]
    if options.rows:
        sets.append(f"train.micro_batch_size={options.rows}")
    if options.compile:
        sets.append("backbone.compile=blocks")
    flags = {
        "backbone.name": options.backbone,
        "backbone.model": str(folder) if model == "mid" else model,
        "recipe": options.recipe,
    }
    return resolve(None, flags, [*sets, *options.sets])


def session_of(config: Config, model: str) -> Session:
    """The session, with a vision tower for a reward unless the model draws what `shapes` knows."""
    session = build(config)
    if model in ("tiny", "mid"):
        return session
    backbone = session.backbone
    size = TOWER if backbone.device.type == "cuda" else SMALL
    rewards = Rewards({"tower": Tower(backbone.modality, backbone.device, size)})
    trainer = replace(session.trainer, rewards=rewards)
    return replace(session, trainer=trainer)


def save_mid(folder: Path) -> None:
    """A Stable Diffusion 3 of 102 M denoiser parameters, of random weights, on the tiny one."""
    tiny = treerl.assemble(settings={"backbone.device": "cpu"})
    backbone = tiny.backbone
    assert isinstance(backbone, PipelineBackbone)
    pipeline = backbone.pipeline
    sizes = {"num_layers": LAYERS, "num_attention_heads": WIDTH // 64, "attention_head_dim": 64}
    config = {**pipeline.transformer.config, **sizes, "caption_projection_dim": WIDTH}
    known = {name: value for name, value in config.items() if not name.startswith("_")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline.transformer = diffusers.SD3Transformer2DModel(**known)
    pipeline.save_pretrained(folder)
    tiny.close()
