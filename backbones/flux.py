"""FLUX.1 (rectified flow, packed latents): -dev with embedded guidance, -schnell without any."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from treerl.backbone import comfyui
from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine.schedule import Flow


class Flux(PipelineBackbone):
    """A `FluxPipeline`; latents are packed, two by two, into tokens `[H/16 · W/16, 64]`."""

    name = "flux"
    title = "FLUX.1"
    pipeline_class = "FluxPipeline"
    guidance_embedded = True

    @property
    def default_size(self) -> tuple[int, int, int]:
        side = self.pipeline.default_sample_size * self.pipeline.vae_scale_factor
        return side, side, 1

    @property
    def size_multiple(self) -> tuple[int, int]:
        return 2 * self.pipeline.vae_scale_factor, 1

    @property
    def shape(self) -> tuple[int, ...]:
        return self._rows * self._columns, self.pipeline.transformer.config.in_channels

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        text, pooled, _ = self.pipeline.encode_prompt(
            prompts, prompts, device=self.device, **self.length_argument
        )
        return {"text": text, "pooled": pooled}

    def schedule(self, steps: int) -> Flow:
        even = np.linspace(1.0, 1 / steps, steps)
        return self.flow(
            self.scheduler_with_timesteps(steps, sigmas=even, mu=self.mu(self.shape[0])),
            time_scale=1 / 1000,
        )

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        transformer = self.pipeline.transformer
        text = condition["text"]
        strength = None
        if transformer.config.guidance_embeds:
            strength = torch.full((len(x),), guidance, device=x.device)
        tokens, places = self.tokens(x, condition)
        velocity: Tensor = transformer(
            hidden_states=tokens,
            timestep=time,
            guidance=strength,
            pooled_projections=condition["pooled"],
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=places,
            return_dict=False,
        )[0]
        return velocity[:, : x.shape[1]]

    def tokens(self, x: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """What the network reads `[M, L, 64]`, the latent first, and where each token is `[L, 3]`.

        A family that edits images appends theirs.
        """
        places: Tensor = self.pipeline._prepare_latent_image_ids(
            len(x), self._rows, self._columns, x.device, x.dtype
        )
        return x, places

    def vae_decode(self, x: Tensor) -> Tensor:
        return super().vae_decode(self._unpacked(x))

    def _unpacked(self, x: Tensor) -> Tensor:
        """Tokens `[M, R · C, 64]` as latents of rows and columns."""
        latents: Tensor = self.pipeline._unpack_latents(
            x, self.height, self.width, self.pipeline.vae_scale_factor
        )
        return latents

    def comfyui_layers(self, layers: comfyui.Layers) -> comfyui.Layers | None:
        return comfyui.prefixed(layers, "transformer.")

    @property
    def _rows(self) -> int:
        return self.height // self.size_multiple[0]

    @property
    def _columns(self) -> int:
        return self.width // self.size_multiple[0]
