"""Draws with diffusers alone what an export holds: run in a process of its own, by `treerl export`.

Where the run's base was quantized it is quantized here too, by treerl: the one part that is ours.

python redraw.py FOLDER     # reads request.json, latents.safetensors and images, and writes
                            # drawn.safetensors
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

IMAGE = "image file"  # an argument {IMAGE: name} is the image in that file


def main(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    dtype = getattr(torch, request["dtype"])
    pipeline = getattr(diffusers, request["pipeline"]).from_pretrained(
        request["model"],
        revision=request["revision"],
        variant=request["variant"],
        dtype=dtype,
        **dict.fromkeys(request["absent"]),
    )
    networks = []
    if request["quantize"]:  # by ours: a base that is quantized otherwise is another one
        networks = [getattr(pipeline, name) for name in request["denoisers"]]
        from treerl.backbone.quantized import quantize

        quantize(networks, request["quantize"], dtype, torch.device(request["device"]))
    scheduler = request["scheduler"]
    pipeline.scheduler = getattr(diffusers, scheduler["_class_name"]).from_config(scheduler)
    if request["float32_vae"]:
        pipeline.vae.float()
    for name in request["vae"]:
        getattr(pipeline.vae, name)()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(request["device"])
    drawn = {}
    if request["adapters"]:
        drawn["before"] = _draw(pipeline, folder, request)
    for adapter in request["adapters"]:
        pipeline.load_lora_weights(adapter["folder"], adapter_name="default", **adapter["into"])
    for network in networks:  # on layers of integers a LoRA is not cast to what they compute in
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(dtype)
    drawn["after"] = _draw(pipeline, folder, request)
    save_file(drawn, folder / "drawn.safetensors")


def _draw(pipeline: Any, folder: Path, request: dict[str, Any]) -> torch.Tensor:
    latents = load_file(folder / "latents.safetensors")["latents"].to(request["device"])
    # a copy, for some pipelines overwrite the prompts that they are given
    arguments = _opened(copy.deepcopy(request["arguments"]), folder)
    with torch.no_grad():
        samples = pipeline(**arguments, latents=latents, output_type="pt", return_dict=False)[0]
    return torch.as_tensor(samples).float().cpu().contiguous()


def _opened(value: Any, folder: Path) -> Any:
    """The value with every image read from its file."""
    if isinstance(value, list):
        return [_opened(part, folder) for part in value]
    if isinstance(value, dict) and set(value) == {IMAGE}:
        return Image.open(folder / value[IMAGE]).copy()
    if isinstance(value, dict):
        return {key: _opened(part, folder) for key, part in value.items()}
    return value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
