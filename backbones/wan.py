"""Wan (rectified flow video): 2.1 T2V, 2.2 TI2V with a time per token, 2.2 A14B of two experts."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from treerl.backbone import comfyui
from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine.schedule import Flow
from treerl.errors import InputError

# the layers of a block in the names of the published checkpoints, which ComfyUI keeps
COMFYUI = {
    r"(blocks\.\d+)\.attn1\.to_([qkv])": r"\1.self_attn.\2",
    r"(blocks\.\d+)\.attn1\.to_out\.0": r"\1.self_attn.o",
    r"(blocks\.\d+)\.attn2\.to_([qkv])": r"\1.cross_attn.\2",
    r"(blocks\.\d+)\.attn2\.to_out\.0": r"\1.cross_attn.o",
    r"(blocks\.\d+)\.attn2\.add_([kv])_proj": r"\1.cross_attn.\2_img",
    r"(blocks\.\d+)\.ffn\.net\.0\.proj": r"\1.ffn.0",
    r"(blocks\.\d+)\.ffn\.net\.2": r"\1.ffn.2",
}


class Wan(PipelineBackbone):
    """A `WanPipeline`; latents are `[C, (F - 1) / 4 + 1, H / 8, W / 8]`, or coarser in TI2V."""

    name = "wan"
    title = "Wan"
    pipeline_class = "WanPipeline"
    modality = "videos"
    denoiser_names = ("transformer", "transformer_2")
    float32_vae = True

    def configure_scheduler(self) -> None:
        scheduler = self.pipeline.scheduler
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            return
        config = scheduler.config
        flow = config.get("use_flow_sigmas") and config.get("prediction_type") == "flow_prediction"
        if not isinstance(scheduler, UniPCMultistepScheduler) or not flow:
            raise InputError(
                "backbone.model: expected Euler's flow scheduler or UniPC with flow sigmas, "
                f"got {type(scheduler).__name__}"
            )
        # UniPC of order 1 without its corrector is Euler on the sigmas that the checkpoint ships;
        # Euler's own scheduler would not reproduce them, as it shifts the last of them twice
        every = list(range(config.num_train_timesteps))
        self.pipeline.scheduler = UniPCMultistepScheduler.from_config(
            config, solver_order=1, disable_corrector=every
        )

    @property
    def default_size(self) -> tuple[int, int, int]:
        return 480, 832, 81

    @property
    def size_multiple(self) -> tuple[int, int]:
        patch = self._config.patch_size[1]
        # the pipeline's own call asks for 16, whatever the autoencoder
        pixels = math.lcm(16, self.pipeline.vae_scale_factor_spatial * patch)
        return pixels, self.pipeline.vae_scale_factor_temporal

    @property
    def shape(self) -> tuple[int, ...]:
        unit = self.pipeline.vae_scale_factor_spatial
        grid = self.latent_grid(unit, self.pipeline.vae_scale_factor_temporal)
        return self._config.in_channels, *grid

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        length = {
            "max_sequence_length": 512
        } | self.length_argument  # what the pipeline's call passes to it
        text, _ = self.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device, **length
        )
        return {"text": text}

    def schedule(self, steps: int) -> Flow:
        return self.flow(self.scheduler_with_timesteps(steps))

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        text = condition["text"]
        ratio = self.pipeline.config.boundary_ratio
        if ratio is None:
            return self._expert("transformer", x, time, text)
        first = time >= ratio * self.pipeline.scheduler.config.num_train_timesteps
        # an expert that lies in parts on several processes is asked by all of them or by none
        if not self.peers.forwards(int(not first.all())):
            return self._expert("transformer", x, time, text)
        if not self.peers.forwards(int(first.any())):
            return self._expert("transformer_2", x, time, text)
        # both on all rows, so that how many rows share a forward never depends on their times
        early = self._expert("transformer", x, time, text)
        late = self._expert("transformer_2", x, time, text)
        return torch.where(first.view(-1, 1, 1, 1, 1), early, late)

    def vae_decode(self, x: Tensor) -> Tensor:
        videos: Tensor = self.pipeline.vae.decode(self.denormalised(x), return_dict=False)[0]
        return videos

    def comfyui_layers(self, layers: comfyui.Layers) -> comfyui.Layers | None:
        return comfyui.renamed(layers, COMFYUI, "diffusion_model.")

    @property
    def _config(self) -> Any:
        return self.pipeline.transformer.config

    def _expert(self, name: str, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        if self.pipeline.config.expand_timesteps:  # one time for each token
            time = time[:, None].expand(-1, x[0, 0].numel() // math.prod(self._config.patch_size))
        velocity: Tensor = getattr(self.pipeline, name)(
            hidden_states=x, timestep=time, encoder_hidden_states=text, return_dict=False
        )[0]
        return velocity
