"""Stable Diffusion 3 and 3.5 (rectified flow, MMDiT): -medium, -large, SD3-medium, and the built-in tiny model."""

import copy
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from torch import Tensor, nn

from treerl.backbone import Backbone, Condition
from treerl.config import Backbone as Settings
from treerl.errors import InputError
from treerl.flow import Schedule

_T5_TOKENS = 256  # what the pipeline uses when it is not told


class SD35(Backbone):
    """A `StableDiffusion3Pipeline` behind the backbone contract; classifier-free guidance is one batched forward."""

    def __init__(self, pipeline: Any, settings: Settings, device: torch.device) -> None:
        self._pipeline = pipeline.to(device)
        # kept, for diffusers walks over all modules to answer these, which costs as much as a small forward
        self._device, self._dtype = torch.device(pipeline.transformer.device), pipeline.transformer.dtype
        self._tokens = settings.max_sequence_length or _T5_TOKENS
        for component in pipeline.components.values():
            if isinstance(component, nn.Module):
                component.requires_grad_(False).eval()
        unit = pipeline.vae_scale_factor
        default = pipeline.transformer.config.sample_size * unit
        height, width = settings.height or default, settings.width or default
        patch = unit * pipeline.patch_size
        if height % patch or width % patch:
            raise InputError(f"backbone.height, backbone.width: expected multiples of {patch}, got {height}x{width}")
        self._shape = (pipeline.transformer.config.in_channels, height // unit, width // unit)

    @classmethod
    def load(cls, settings: Settings, device: torch.device) -> "SD35":
        source = str(files("treerl") / "tiny" / "sd35") if settings.model == "tiny" else settings.model
        absent = dict.fromkeys(_absent(Path(source)))
        try:
            pipeline = StableDiffusion3Pipeline.from_pretrained(
                source,
                revision=settings.revision,
                dtype=getattr(torch, settings.dtype),
                use_safetensors=True,
                **absent,
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            what = f"backbone.model: {settings.model!r} cannot be loaded as Stable Diffusion 3"
            raise InputError(f"{what}: {reason}") from error
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline, settings, device)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def pipeline(self) -> Any:
        return self._pipeline

    @property
    def module(self) -> nn.Module:
        module: nn.Module = self._pipeline.transformer
        return module

    @property
    def lora_targets(self) -> tuple[str, ...]:
        return ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

    def encode(self, prompts: Sequence[str]) -> Condition:
        with torch.no_grad():
            text, _, pooled, _ = self._texts(list(prompts))
            negative, _, negative_pooled, _ = self._texts([""])
        count = len(prompts)
        return Condition(
            {
                "text": text,
                "pooled": pooled,
                "negative_text": negative.expand(count, -1, -1),
                "negative_pooled": negative_pooled.expand(count, -1),
            }
        )

    def schedule(self, steps: int) -> Schedule:
        scheduler = copy.deepcopy(self._pipeline.scheduler)
        config = scheduler.config
        shift = {}
        if config.get("use_dynamic_shifting"):
            patches = self._shape[1] * self._shape[2] // self._pipeline.patch_size**2
            bounds = (config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift)
            shift = {"mu": calculate_shift(patches, *bounds)}
        scheduler.set_timesteps(steps, **shift)
        return Schedule(scheduler.sigmas.double(), scheduler.timesteps.float())

    def initial(self, noise: Tensor) -> Tensor:
        return noise

    def predict(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        x = x.to(self._dtype)
        text, pooled = condition["text"], condition["pooled"]
        if guidance <= 1:  # the pipeline, too, guides only above 1
            return self._velocity(x, time, text, pooled).float()
        text = torch.cat([condition["negative_text"], text])
        pooled = torch.cat([condition["negative_pooled"], pooled])
        free, guided = self._velocity(torch.cat([x, x]), torch.cat([time, time]), text, pooled).chunk(2)
        free = free.detach()  # the unconditional half is a constant of the update, as in Flow-GRPO
        return (free + guidance * (guided - free)).float()

    def decode(self, x: Tensor) -> Tensor:
        vae = self._pipeline.vae
        latents = x.to(self._dtype) / vae.config.scaling_factor + vae.config.shift_factor
        pictures: Tensor = vae.decode(latents, return_dict=False)[0].float() / 2 + 0.5
        return pictures.clamp(0, 1)

    def _texts(self, prompts: list[str]) -> Any:
        return self._pipeline.encode_prompt(
            prompts, prompts, prompts, do_classifier_free_guidance=False, max_sequence_length=self._tokens
        )

    def _velocity(self, x: Tensor, time: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        velocity: Tensor = self._pipeline.transformer(
            hidden_states=x,
            timestep=time,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return velocity


def _absent(folder: Path) -> list[str]:
    """The components that a local pipeline folder was saved without; diffusers wants them named again."""
    index = folder / "model_index.json"
    if not index.is_file():
        return []
    parts = json.loads(index.read_text(encoding="utf-8"))
    return [name for name, value in parts.items() if value == [None, None]]
