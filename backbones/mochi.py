"""Mochi 1 (rectified flow video): its time, and what it predicts, run from noise to sample."""

from collections.abc import Mapping

import numpy as np
import torch
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from torch import Tensor

from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine.schedule import Flow

# of the noise that the first half of the steps removes, as in the pipeline's own call
THRESHOLD = 0.025


class Mochi(PipelineBackbone):
    """A `MochiPipeline`; latents are `[C, (F - 1) / 6 + 1, H / 8, W / 8]`."""

    name = "mochi"
    title = "Mochi 1"
    pipeline_class = "MochiPipeline"
    modality = "videos"

    @property
    def default_size(self) -> tuple[int, int, int]:
        return self.pipeline.default_height, self.pipeline.default_width, 19

    @property
    def size_multiple(self) -> tuple[int, int]:
        pixels = (
            self.pipeline.vae_spatial_scale_factor * self.pipeline.transformer.config.patch_size
        )
        return pixels, self.pipeline.vae_temporal_scale_factor

    @property
    def shape(self) -> tuple[int, ...]:
        pipeline = self.pipeline
        grid = self.latent_grid(
            pipeline.vae_spatial_scale_factor, pipeline.vae_temporal_scale_factor
        )
        return pipeline.transformer.config.in_channels, *grid

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        # one by one, for the pipeline blanks every prompt of a call whose last one is empty
        texts = []
        masks = []
        for prompt in prompts:
            text, mask, _, _ = self.pipeline.encode_prompt(
                [prompt],
                do_classifier_free_guidance=False,
                device=self.device,
                **self.length_argument,
            )
            texts.append(text)
            masks.append(mask)
        return {"text": torch.cat(texts), "mask": torch.cat(masks)}

    def schedule(self, steps: int) -> Flow:
        scheduler = self.scheduler_with_timesteps(
            steps, sigmas=np.array(linear_quadratic_schedule(steps, THRESHOLD))
        )
        # the scheduler counts up to the sample (invert_sigmas); the network is told its timesteps
        return Flow(time=scheduler.timesteps.float(), sigma=1 - scheduler.sigmas.double())

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        forwards: Tensor = self.pipeline.transformer(
            hidden_states=x,
            encoder_hidden_states=condition["text"],
            timestep=time,
            encoder_attention_mask=condition["mask"],
            return_dict=False,
        )[0]
        return -forwards

    def vae_decode(self, x: Tensor) -> Tensor:
        videos: Tensor = self.pipeline.vae.decode(self.denormalised(x), return_dict=False)[0]
        return videos
