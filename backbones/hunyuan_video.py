"""HunyuanVideo (rectified flow video): Llama reads the prompt in a template; embedded guidance."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from treerl.backbone import comfyui
from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine.schedule import Flow

QKV = ("to_q", "to_k", "to_v")
ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")
DOUBLE = r"transformer_blocks\.(\d+)"
SINGLE = r"single_transformer_blocks\.(\d+)"
REFINER = r"context_embedder\.token_refiner\.refiner_blocks\.(\d+)"
REFINED = r"txt_in.individual_token_refiner.blocks.\1.self_attn"
# blocks here, the layers of their attention, and the one layer that ComfyUI has for these
COMFYUI = (
    (DOUBLE, QKV, r"double_blocks.\1.img_attn.qkv"),
    (DOUBLE, ("to_out.0",), r"double_blocks.\1.img_attn.proj"),
    (DOUBLE, ADDED, r"double_blocks.\1.txt_attn.qkv"),
    (DOUBLE, ("to_add_out",), r"double_blocks.\1.txt_attn.proj"),
    (SINGLE, QKV, r"single_blocks.\1.linear1"),
    (REFINER, QKV, REFINED + ".qkv"),
    (REFINER, ("to_out.0",), REFINED + ".proj"),
)


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
        span = pipeline.vae_scale_factor_temporal
        grid = self.latent_grid(pipeline.vae_scale_factor_spatial, span)
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

    def comfyui_layers(self, layers: comfyui.Layers) -> comfyui.Layers | None:
        left = dict(layers)
        mlp: int = self.pipeline.transformer.single_transformer_blocks[0].proj_mlp.out_features
        named: dict[str, comfyui.Pair] = {}
        for block in dict.fromkeys(re.sub(r"\.attn\..*", "", name) for name in layers):
            for pattern, parts, layer in COMFYUI:
                match = re.fullmatch(pattern, block)
                sources = [f"{block}.attn.{part}" for part in parts]
                if match is None or not all(source in left for source in sources):
                    continue
                pairs = [left.pop(source) for source in sources]
                # a single block computes q, k, v and its MLP by one matrix
                rest = mlp if layer.endswith("linear1") else 0
                fused = comfyui.fused(pairs, rest) if len(pairs) > 1 else pairs[0]
                named["diffusion_model." + match.expand(layer)] = fused
        return None if left else named
