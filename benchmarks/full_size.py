"""Two `treegrpo` iterations at full size on random weights: peak memory and seconds.

    python benchmarks/full_size.py              # sd35, flux and wan on a GPU, as their presets are
    python benchmarks/full_size.py --dry-run    # the same code on miniatures, on the CPU

The published architectures with their text encoders, and a ViT-H/14 reward tower of random weights;
nothing is downloaded. Prints a table row for each model: sizes, seconds of the second iteration and
of 27 scores, peak memory, date, card and versions.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from treerl.backbone.pipeline import PipelineBackbone
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.engine.task import Modality, Samples
from treerl.reward.contract import Reward
from treerl.reward.rewards import Rewards
from treerl.run.assemble import build, device_of

TOWER = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
}
TOWER |= {"patch_size": 14, "image_size": 224, "projection_dim": 1024}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SMALL |= {"patch_size": 14, "image_size": 28, "projection_dim": 16}
COLUMNS = (
    "model | size | prompts x leaves | rows | load, s | iteration, s | 27 scores, s | peak, GiB | "
    "ratio deviation | on"
)


class Tower(Reward):
    """A vision tower of random weights: what a learned reward costs, without its judgement."""

    def __init__(self, modality: Modality, device: torch.device, size: dict[str, int]) -> None:
        self.modality = modality
        self.device = device
        self.side = size["image_size"]
        with device:
            tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**size))
            self.tower = tower.to(torch.bfloat16).eval()

    def __call__(self, samples: Samples) -> Tensor:
        frames = samples.images
        if frames.dim() == 4:
            frames = frames[:, None]
        else:
            frames = frames[:, :: max(1, frames.shape[1] // 4)]
        flat = frames.flatten(0, 1).to(self.device, torch.bfloat16)
        small = torch.nn.functional.interpolate(flat, (self.side, self.side), mode="bilinear")
        with torch.no_grad():
            embeddings = self.tower(small).image_embeds
        scores: Tensor = embeddings.float().mean(1).view(len(samples), -1).mean(1)
        return scores


def settings(name: str, model: str, sets: Sequence[str]) -> Config:
    """The backbone's preset on a model of random weights."""
    flags = {"backbone.name": name, "backbone.model": model}
    ours = ["recipe=treegrpo", "rewards={jpeg: 1}", "train.iterations=2"]
    return resolve(None, flags, [*ours, *sets])


def measure(config: Config, tower: dict[str, int]) -> str:
    """One row of the table."""
    device = device_of(config)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    session = build(config)
    backbone = session.backbone
    assert isinstance(backbone, PipelineBackbone)
    scorer = Tower(backbone.modality, device, tower)
    trainer = replace(session.trainer, rewards=Rewards({"tower": scorer}))
    session = replace(session, trainer=trainer)
    loaded = time.perf_counter() - began
    iterations = session.train(2)
    next(iterations)
    seconds, step = timed(lambda: next(iterations), device)
    frames = (4,) if backbone.modality == "videos" else ()
    images = torch.rand(27, *frames, 3, backbone.height, backbone.width)
    samples = Samples.of(images, [""] * 27)
    level = min(timed(lambda: scorer(samples), device)[0] for _ in range(2))
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if cuda else float("nan")
    card = torch.cuda.get_device_name(device) if cuda else "CPU"
    prompts = config.train.prompts_per_iteration
    cells = [
        f"{config.backbone.name} ({backbone.settings.model}, {backbone.settings.dtype})",
        "x".join(str(side) for side in backbone.shape),
        f"{prompts} x {step.metrics['leaves'] // prompts}",
        str(config.train.micro_batch_size),
        f"{loaded:.1f}",
        f"{seconds:.1f}",
        f"{level:.3f}",
        f"{peak:.1f}",
        f"{step.metrics['ratio_deviation']:.1e}",
        f"{card}, torch {version('torch')}, diffusers {version('diffusers')}",
    ]
    return f"| {' | '.join(cells)} |"


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds that some work takes on the device, and what it returns."""
    began = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=["sd35", "flux", "wan"])
    parser.add_argument("--dry-run", action="store_true", help="miniatures on the CPU")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    options = parser.parse_args()
    small = [
        "train.prompts_per_iteration=2",
        "train.micro_batch_size=4",
        "tree.branching.branching_factor=2",
        "env.steps=5",
        "backbone.device=cpu",
    ]
    print(f"{datetime.now(UTC):%Y-%m-%d}\n\n| {COLUMNS} |\n|" + "---|" * len(COLUMNS.split("|")))
    for name in options.backbones:
        if options.dry_run:
            config = settings(name, "miniature", [*small, *options.sets])
            row = measure(config, SMALL)
        else:
            row = measure(settings(name, "random", options.sets), TOWER)
        print(row, flush=True)


if __name__ == "__main__":
    main()
