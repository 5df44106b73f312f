"""HunyuanVideo (rectified flow video): Llama reads the prompt in a template; embedded guidance."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine.schedule import Flow


class HunyuanVideo(PipelineBackbone):
    """A `HunyuanVideoPipeline`; latents are `[C, (F - 1) / 4 + 1, H / 8, W / 8]`."""

    name = "hunyuan-video"
    title = "HunyuanVideo"
    pipeline_class = "HunyuanVideoPipeline"
    modality = "videos"
    guidance_embedded = True

    @property
    def default_size(self) -> tuple[int, int, int]:
        return 720, 1280, 129

    @property
    def size_multiple(self) -> tuple[int, int]:
        pixels = (
            self.pipeline.vae_scale_factor_spatial * self.pipeline.transformer.config.patch_size
        )
        return pixels, self.pipeline.vae_scale_factor_temporal

    @property
    def shape(self) -> tuple[int, ...]:
        pipeline = self.pipeline
        grid = self.latent_grid(
            pipeline.vae_scale_factor_spatial, pipeline.vae_scale_factor_temporal
        )
        return pipeline.transformer.config.in_channels, *grid

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        text, pooled, mask = self.pipeline.encode_prompt(
            prompts, device=self.device, **self.length_argument
        )
        return {"text": text, "pooled": pooled, "mask": mask}

    def schedule(self, steps: int) -> Flow:
        return self.flow(
            self.scheduler_with_timesteps(steps, sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1])
        )

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        velocity: Tensor = self.pipeline.transformer(
            hidden_states=x,
            timestep=time,
            encoder_hidden_states=condition["text"],
            encoder_attention_mask=condition["mask"],
            pooled_projections=condition["pooled"],
            guidance=torch.full((len(x),), 1000 * guidance, device=x.device),
            return_dict=False,
        )[0]
        return velocity
