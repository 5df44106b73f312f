"""Stable Diffusion 3 and 3.5 (rectified flow, MMDiT), and the built-in tiny model."""

from collections.abc import Mapping

from torch import Tensor

from treerl.backbone import comfyui
from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine.schedule import Flow


class SD35(PipelineBackbone):
    """A `StableDiffusion3Pipeline`; guidance is one batched forward."""

    name = "sd35"
    title = "Stable Diffusion 3"
    pipeline_class = "StableDiffusion3Pipeline"

    @property
    def default_size(self) -> tuple[int, int, int]:
        side = self.pipeline.transformer.config.sample_size * self.pipeline.vae_scale_factor
        return side, side, 1

    @property
    def size_multiple(self) -> tuple[int, int]:
        return self.pipeline.vae_scale_factor * self.pipeline.patch_size, 1

    @property
    def longest_side(self) -> int:
        unit, _ = self.size_multiple
        return int(self.pipeline.transformer.config.pos_embed_max_size) * unit

    @property
    def shape(self) -> tuple[int, ...]:
        _, rows, columns = self.latent_grid(self.pipeline.vae_scale_factor)
        return self.pipeline.transformer.config.in_channels, rows, columns

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        text, _, pooled, _ = self.pipeline.encode_prompt(
            prompts,
            prompts,
            prompts,
            device=self.device,
            do_classifier_free_guidance=False,
            **self.length_argument,
        )
        return {"text": text, "pooled": pooled}

    def schedule(self, steps: int) -> Flow:
        if not self.pipeline.scheduler.config.get("use_dynamic_shifting"):
            return self.flow(self.scheduler_with_timesteps(steps))
        patches = self.shape[1] * self.shape[2] // self.pipeline.patch_size**2
        return self.flow(self.scheduler_with_timesteps(steps, mu=self.mu(patches)))

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        velocity: Tensor = self.pipeline.transformer(
            hidden_states=x,
            timestep=time,
            encoder_hidden_states=condition["text"],
            pooled_projections=condition["pooled"],
            return_dict=False,
        )[0]
        return velocity

    def comfyui_layers(self, layers: comfyui.Layers) -> comfyui.Layers | None:
        return comfyui.prefixed(layers, "transformer.")
