"""Draws with diffusers alone what an export holds: run in a process of its own, by `treerl export`.

python redraw.py REQUEST     # a folder with request.json and latents.safetensors; writes drawn.safetensors into it
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file, save_file


def main(folder: Path) -> None:
    asked = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    pipeline = getattr(diffusers, asked["pipeline"]).from_pretrained(
        asked["model"],
        revision=asked["revision"],
        variant=asked["variant"],
        dtype=getattr(torch, asked["dtype"]),
        **dict.fromkeys(asked["absent"]),
    )
    pipeline.scheduler = getattr(diffusers, asked["scheduler"]["_class_name"]).from_config(
        asked["scheduler"]
    )
    if asked["precise_vae"]:
        pipeline.vae.float()
    for name in asked["vae"]:
        getattr(pipeline.vae, name)()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(asked["device"])
    drawn = {"before": _draw(pipeline, folder, asked)} if asked["adapters"] else {}
    for adapter in asked["adapters"]:
        pipeline.load_lora_weights(adapter["folder"], adapter_name="default", **adapter["into"])
    drawn["after"] = _draw(pipeline, folder, asked)
    save_file(drawn, folder / "drawn.safetensors")


def _draw(pipeline: Any, folder: Path, asked: dict[str, Any]) -> torch.Tensor:
    latents = load_file(folder / "latents.safetensors")["latents"].to(asked["device"])
    with torch.no_grad():
        given = copy.deepcopy(
            asked["arguments"]
        )  # some pipelines overwrite the prompts that they are given
        samples = pipeline(**given, latents=latents, output_type="pt", return_dict=False)[0]
    return torch.as_tensor(samples).float().cpu().contiguous()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
