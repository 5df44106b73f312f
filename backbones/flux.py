"""FLUX.1 (rectified flow, packed latents): -dev with embedded guidance, -schnell without any."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import Pipelined
from treerl.engine.schedule import Flow


class Flux(Pipelined):
    """A `FluxPipeline`; latents are packed, two by two, into a row of tokens `[H/16 · W/16, 64]`."""

    name = "flux"
    title = "FLUX.1"
    pipeline_class = "FluxPipeline"
    embedded = True

    @property
    def default_size(self) -> tuple[int, int, int]:
        side = self.pipeline.default_sample_size * self.pipeline.vae_scale_factor
        return side, side, 1

    @property
    def grid(self) -> tuple[int, int]:
        return 2 * self.pipeline.vae_scale_factor, 1

    @property
    def shape(self) -> tuple[int, ...]:
        return self._rows * self._columns, self.pipeline.transformer.config.in_channels

    def texts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        text, pooled, _ = self.pipeline.encode_prompt(
            prompts, prompts, device=self.device, **self.tokens
        )
        return {"text": text, "pooled": pooled}

    def schedule(self, steps: int) -> Flow:
        even = np.linspace(1.0, 1 / steps, steps)
        return self.flow(
            self.walked(steps, sigmas=even, mu=self.shift(self.shape[0])), unit=1 / 1000
        )

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        transformer, text = self.pipeline.transformer, condition["text"]
        strength = (
            torch.full((len(x),), guidance, device=x.device)
            if transformer.config.guidance_embeds
            else None
        )
        velocity: Tensor = transformer(
            hidden_states=x,
            timestep=time,
            guidance=strength,
            pooled_projections=condition["pooled"],
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=self.pipeline._prepare_latent_image_ids(
                len(x), self._rows, self._columns, x.device, x.dtype
            ),
            return_dict=False,
        )[0]
        return velocity

    def decoded(self, x: Tensor) -> Tensor:
        vae = self.pipeline.vae
        latents = self.pipeline._unpack_latents(
            x, self.height, self.width, self.pipeline.vae_scale_factor
        )
        pictures: Tensor = vae.decode(
            latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False
        )[0]
        return pictures

    @property
    def _rows(self) -> int:
        return self.height // self.grid[0]

    @property
    def _columns(self) -> int:
        return self.width // self.grid[0]
