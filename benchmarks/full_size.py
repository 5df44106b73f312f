"""Two `treegrpo` iterations at full size on random weights: peak memory and seconds, nothing downloaded.

    python benchmarks/full_size.py                       # sd35, flux and wan on a GPU, as their presets are
    python benchmarks/full_size.py --dry-run             # the same code on miniatures, on the CPU

The published architectures with their text encoders, and a ViT-H/14 reward tower of random weights. Prints a table row
for each model: sizes, seconds of the second iteration and of its phases, peak memory, date, card and versions.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from treerl import registry
from treerl.backbone.pipeline import PipelineBackbone
from treerl.config.resolve import resolve
from treerl.config.schema import Config
from treerl.engine import trainer
from treerl.engine.task import Modality
from treerl.reward.contract import Reward
from treerl.run.plan import Plan
from treerl.run.run import device, load
from treerl.run.tasks import chosen

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
COLUMNS = "model | size | prompts x leaves | rows | load, s | iteration, s | 27 scores, s | peak, GiB | ratio deviation | on"


class Tower(Reward):
    """A vision tower of random weights: what a learned reward costs, without its judgement."""

    def __init__(self, makes: Modality, where: torch.device, size: dict[str, int]) -> None:
        self.takes = makes  # type: ignore[misc]
        self.device, self.side = where, size["image_size"]
        with where:
            self.tower = (
                CLIPVisionModelWithProjection(CLIPVisionConfig(**size)).to(torch.bfloat16).eval()
            )

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        frames = (
            images[:, :: max(1, images.shape[1] // 4)] if images.dim() == 5 else images[:, None]
        )
        flat = frames.flatten(0, 1).to(self.device, torch.bfloat16)
        small = torch.nn.functional.interpolate(flat, (self.side, self.side), mode="bilinear")
        with torch.no_grad():
            seen = self.tower(small).image_embeds
        scores: Tensor = seen.float().mean(1).view(len(images), -1).mean(1)
        return scores


def settings(name: str, model: str, sets: Sequence[str]) -> Config:
    """The backbone's preset on a model of random weights."""
    own = ["rewards={shapes: 1}", "train.iterations=2"]
    chosen_flags = {"backbone.name": name, "backbone.model": model}
    return resolve(None, chosen_flags, [*own, *sets])


def measure(config: Config, tower: dict[str, int]) -> str:
    """One row of the table."""
    where, plan, (texts, _) = device(config), Plan(config), chosen(config)
    cuda = where.type == "cuda"
    if cuda:
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.cuda.reset_peak_memory_stats(where)
    makes = registry.load("backbones", config.backbone.name).modality
    began = time.perf_counter()
    scorer = Tower(makes, where, tower)
    backbone, env = load(config, plan, where, {"tower": scorer})
    made = trainer.make(config, plan, backbone, env, lambda: None)
    loaded = time.perf_counter() - began
    steps = [timed(lambda number=number: made.iterate(number, texts), where) for number in range(2)]  # type: ignore[misc]
    assert isinstance(backbone, PipelineBackbone)
    pictures = torch.rand(
        27, *((4,) if makes == "videos" else ()), 3, backbone.height, backbone.width
    )
    level = min(timed(lambda: scorer(pictures, [""] * 27), where)[0] for _ in range(2))
    seconds, metrics = steps[-1][0], steps[-1][1].metrics
    peak = torch.cuda.max_memory_allocated(where) / 2**30 if cuda else float("nan")
    b, size = config.backbone, "x".join(str(one) for one in backbone.shape)
    cells = [
        f"{b.name} ({b.model}, {b.dtype})",
        size,
        f"{config.train.prompts} x {metrics['leaves'] // config.train.prompts}",
    ]
    cells += [
        str(config.train.rows),
        f"{loaded:.1f}",
        f"{seconds:.1f}",
        f"{level:.3f}",
        f"{peak:.1f}",
        f"{metrics['ratio_deviation']:.1e}",
    ]
    card = torch.cuda.get_device_name(where) if cuda else "CPU"
    return (
        "| "
        + " | ".join(
            [*cells, f"{card}, torch {version('torch')}, diffusers {version('diffusers')}"]
        )
        + " |"
    )


def timed(work: Callable[[], Any], where: torch.device) -> tuple[float, Any]:
    """Seconds that some work takes on the device, and what it returns."""
    began = time.perf_counter()
    found = work()
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    return time.perf_counter() - began, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbones", nargs="+", default=["sd35", "flux", "wan"])
    parser.add_argument("--dry-run", action="store_true", help="miniatures on the CPU")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    options = parser.parse_args()
    small = [
        "train.prompts=2",
        "train.rows=4",
        "tree.branch=2",
        "env.steps=5",
        "backbone.device=cpu",
    ]
    print(f"{datetime.now(UTC):%Y-%m-%d}\n\n| {COLUMNS} |\n|" + "---|" * len(COLUMNS.split("|")))
    for name in options.backbones:
        model, own = ("miniature", small) if options.dry_run else ("random", [])
        print(
            measure(
                settings(name, model, [*own, *options.sets]), SMALL if options.dry_run else TOWER
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
