"""Stable Diffusion 1 and 2 (diffusion, U-Net): predictions of the noise, or of v as in 2.x."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from treerl.backbone import comfyui
from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine.schedule import Diffusion
from treerl.engine.task import Task
from treerl.errors import InputError, printable

PREDICTS: Mapping[str, Literal["noise", "v"]] = {"epsilon": "noise", "v_prediction": "v"}


class SD15(PipelineBackbone):
    """A `StableDiffusionPipeline`, walked by DDIM on the betas that the checkpoint ships."""

    name = "sd15"
    title = "Stable Diffusion 1 and 2"
    pipeline_class = "StableDiffusionPipeline"
    denoiser_names = ("unet",)

    def configure_scheduler(self) -> None:
        config = self.pipeline.scheduler.config
        kind = config.get("prediction_type", "epsilon")
        if "beta_start" not in config or kind not in PREDICTS:
            raise InputError(
                f"backbone.model: expected a scheduler of betas and {' or '.join(PREDICTS)}, "
                f"got {type(self.pipeline.scheduler).__name__} of {printable(kind)}"
            )
        if self.pipeline.unet.config.time_cond_proj_dim is not None:
            raise InputError(
                "backbone.model: expected guidance by two forwards, got a U-Net that is told "
                "its strength"
            )
        if self.settings.max_sequence_length is not None:
            raise InputError(
                "backbone.max_sequence_length: expected null, as CLIP's length is fixed, "
                f"got {self.settings.max_sequence_length}"
            )
        # the shipped scheduler may use the steps before (PNDM) or rescale the latent (Euler)
        self.pipeline.scheduler = DDIMScheduler.from_config(
            config, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        )

    @property
    def default_size(self) -> tuple[int, int, int]:
        side = self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor
        return side, side, 1

    @property
    def size_multiple(self) -> tuple[int, int]:
        return self.pipeline.vae_scale_factor, 1

    @property
    def shape(self) -> tuple[int, ...]:
        _, rows, columns = self.latent_grid(self.pipeline.vae_scale_factor)
        return self.pipeline.unet.config.in_channels, rows, columns

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        text, _ = self.pipeline.encode_prompt(
            prompts, self.device, 1, do_classifier_free_guidance=False
        )
        return {"text": text}

    def schedule(self, steps: int) -> Diffusion:
        config = self.pipeline.scheduler.config
        # the offset of one would ask for a level that was never trained
        if steps >= config.num_train_timesteps:
            raise InputError(
                f"env.steps: expected less than the {config.num_train_timesteps} of training, "
                f"got {steps}"
            )
        scheduler = self.scheduler_with_timesteps(steps)
        levels = torch.cat(
            [scheduler.alphas_cumprod[scheduler.timesteps], scheduler.final_alpha_cumprod[None]]
        )
        return Diffusion(
            scheduler.timesteps.float(), levels.double(), PREDICTS[config.prediction_type]
        )

    def arguments(
        self, tasks: Sequence[Task], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        # its pipelines hand the U-Net latents as they come
        return super().arguments(tasks, latents.to(self._dtype), steps, guidance)

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        prediction: Tensor = self.pipeline.unet(
            x,
            time,
            encoder_hidden_states=condition["text"],
            added_cond_kwargs=self.added(x, condition),
            return_dict=False,
        )[0]
        return prediction

    def added(self, x: Tensor, condition: Condition) -> dict[str, Any] | None:
        """What the U-Net is told beside the text; `x` says how many rows and which dtype."""
        return None

    def comfyui_layers(self, layers: comfyui.Layers) -> comfyui.Layers | None:
        return comfyui.underscored(layers)
