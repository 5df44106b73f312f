"""LTX-Video (rectified flow video, packed latents): text to video, 0.9 and later."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from treerl.backbone import comfyui
from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine.schedule import Flow
from treerl.errors import InputError

FRAME_RATE = 25  # frames a second, as the pipeline's own call assumes


class LTX(PipelineBackbone):
    """An `LTXPipeline`; latents are rows of tokens `[((F - 1) / 8 + 1) · H/32 · W/32, C]`."""

    name = "ltx"
    title = "LTX-Video"
    pipeline_class = "LTXPipeline"
    modality = "videos"

    def configure_scheduler(self) -> None:
        if any(self.pipeline.vae.config.decoder_inject_noise):
            raise InputError(
                "backbone.model: expected an autoencoder that decodes a latent always alike, "
                "got one that draws noise (decoder_inject_noise), as LTX-Video 0.9.1 has; use 0.9"
            )

    @property
    def default_size(self) -> tuple[int, int, int]:
        return 512, 704, 161

    @property
    def size_multiple(self) -> tuple[int, int]:
        # the pipeline's own call asks for 32, whatever the autoencoder
        return math.lcm(32, self._unit), self._span

    @property
    def shape(self) -> tuple[int, ...]:
        return math.prod(self._latent), self.pipeline.transformer.config.in_channels

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        text, mask, _, _ = self.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device, **self.length_argument
        )
        return {"text": text, "mask": mask}

    def schedule(self, steps: int) -> Flow:
        even = np.linspace(1.0, 1 / steps, steps)
        return self.flow(
            self.scheduler_with_timesteps(steps, sigmas=even, mu=self.mu(math.prod(self._latent)))
        )

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        frames, rows, columns = self._latent
        velocity: Tensor = self.pipeline.transformer(
            hidden_states=x,
            timestep=time,
            encoder_hidden_states=condition["text"],
            encoder_attention_mask=condition["mask"],
            num_frames=frames,
            height=rows,
            width=columns,
            rope_interpolation_scale=(self._span / FRAME_RATE, self._unit, self._unit),
            return_dict=False,
        )[0]
        return velocity

    def vae_decode(self, x: Tensor) -> Tensor:
        vae = self.pipeline.vae
        latents = self.pipeline._denormalize_latents(
            self.pipeline._unpack_latents(x, *self._latent),
            vae.latents_mean,
            vae.latents_std,
            vae.config.scaling_factor,
        )
        # newer decoders are told the noise in their latents: none, as in the pipeline's call
        level = None
        if vae.config.timestep_conditioning:
            level = torch.zeros(len(x), device=x.device, dtype=x.dtype)
        videos: Tensor = vae.decode(latents, level, return_dict=False)[0]
        return videos

    def comfyui_layers(self, layers: comfyui.Layers) -> comfyui.Layers | None:
        return comfyui.prefixed(layers, "diffusion_model.")

    @property
    def _latent(self) -> tuple[int, int, int]:
        """Frames, rows and columns of a latent."""
        return self.latent_grid(self._unit, self._span)

    @property
    def _unit(self) -> int:
        unit: int = self.pipeline.vae_spatial_compression_ratio
        return unit

    @property
    def _span(self) -> int:
        span: int = self.pipeline.vae_temporal_compression_ratio
        return span
