"""CogVideoX (diffusion of videos, predictions of v): 2B, 5B with rotary embeddings, and 1.5."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor

from treerl.backbone.contract import Condition
from treerl.backbone.pipeline import PipelineBackbone
from treerl.engine.schedule import Diffusion
from treerl.errors import InputError, printable


class CogVideoX(PipelineBackbone):
    """A `CogVideoXPipeline` under DDIM; latents are `[(F - 1) / 4 + 1, C, H / 8, W / 8]`."""

    name = "cogvideox"
    title = "CogVideoX"
    pipeline_class = "CogVideoXPipeline"
    modality = "videos"

    def configure_scheduler(self) -> None:
        config = self.pipeline.scheduler.config
        known = self._config
        wanted = self.settings.max_sequence_length
        if config.prediction_type != "v_prediction":
            raise InputError(
                f"backbone.model: expected v_prediction, got {printable(config.prediction_type)}"
            )
        if (
            wanted not in (None, known.max_text_seq_length)
            and not known.use_rotary_positional_embeddings
        ):
            raise InputError(
                f"backbone.max_sequence_length: expected null or {known.max_text_seq_length}, for "
                f"which the model's position embeddings are made, got {wanted}"
            )
        # a step of the DPM scheduler that other checkpoints are used with depends on those before
        self.pipeline.scheduler = CogVideoXDDIMScheduler.from_config(config)

    @property
    def default_size(self) -> tuple[int, int, int]:
        unit = self.pipeline.vae_scale_factor_spatial
        return (
            self._config.sample_height * unit,
            self._config.sample_width * unit,
            self._config.sample_frames,
        )

    @property
    def size_multiple(self) -> tuple[int, int]:
        # of F' latent frames the autoencoder makes 4 F' frames, and 4 F' - 3 only when F' is odd
        span = 2 * self.pipeline.vae_scale_factor_temporal
        return self.pipeline.vae_scale_factor_spatial * self._config.patch_size, span

    @property
    def shape(self) -> tuple[int, ...]:
        _, rows, columns = self.latent_grid(self.pipeline.vae_scale_factor_spatial)
        # 1.5 has patches of two frames, and adds one that it drops again
        patch = self._config.patch_size_t or 1
        padded = -(-self._latent_frames // patch) * patch
        return padded, self._config.in_channels, rows, columns

    @property
    def length_argument(self) -> dict[str, int]:
        return {
            "max_sequence_length": self.settings.max_sequence_length
            or self._config.max_text_seq_length
        }

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        text, _ = self.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, device=self.device, **self.length_argument
        )
        return {"text": text}

    def schedule(self, steps: int) -> Diffusion:
        scheduler = self.scheduler_with_timesteps(steps)
        # some numbers, such as 61, get one too many, at -1, by rounding
        time = scheduler.timesteps[:steps]
        # with steps that do not divide 1000, the scheduler's own step ends beside the next level
        levels = torch.cat([scheduler.alphas_cumprod[time], scheduler.final_alpha_cumprod[None]])
        return Diffusion(time.float(), levels.double(), "v")

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        rotary = None  # 2B has sines instead, which its transformer adds by itself
        if self._config.use_rotary_positional_embeddings:
            rotary = self.pipeline._prepare_rotary_positional_embeddings(
                self.height, self.width, x.shape[1], self.device
            )
        prediction: Tensor = self.pipeline.transformer(
            hidden_states=x,
            encoder_hidden_states=condition["text"],
            timestep=time,
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
        return prediction

    def vae_decode(self, x: Tensor) -> Tensor:
        videos: Tensor = self.pipeline.decode_latents(x[:, len(x[0]) - self._latent_frames :])
        return videos

    @property
    def _config(self) -> Any:
        return self.pipeline.transformer.config

    @property
    def _latent_frames(self) -> int:
        frames: int = (self.frames - 1) // self.pipeline.vae_scale_factor_temporal + 1
        return frames
