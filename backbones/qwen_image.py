"""Qwen-Image (rectified flow, packed latents): guidance by two predictions, as long as the guided one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from treerl.backbone.contract import Condition

from .flux import Flux  # noqa: TID251

LENGTH = 512  # tokens of text, as the pipeline's own call has it


class QwenImage(Flux):
    """A `QwenImagePipeline`; latents are packed as FLUX packs them, and its schedule is shifted the same way."""

    name = "qwen-image"
    title = "Qwen-Image"
    pipeline_class = "QwenImagePipeline"
    embedded = False
    blank = " "  # what its model card guides away from

    def texts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        length = self.settings.max_sequence_length or LENGTH
        text, mask = self.pipeline.encode_prompt(
            prompts, device=self.device, max_sequence_length=length
        )
        if mask is None:  # nothing was padded, as all prompts are as long
            mask = torch.ones(text.shape[:2], device=text.device)
        short = length - text.shape[1]
        return {"text": pad(text, (0, 0, 0, short)), "mask": pad(mask.bool(), (0, short))}

    def network(self, x: Tensor, time: Tensor, condition: Condition, guidance: float) -> Tensor:
        velocity: Tensor = self.pipeline.transformer(
            hidden_states=x,
            timestep=time,
            encoder_hidden_states=condition["text"],
            encoder_hidden_states_mask=condition["mask"],
            img_shapes=[[(1, self._rows, self._columns)]] * len(x),
            return_dict=False,
        )[0]
        return velocity

    def combine(self, free: Tensor, guided: Tensor, guidance: float) -> Tensor:
        mixed = free + guidance * (guided - free)
        length, wanted = (
            torch.linalg.vector_norm(one, dim=-1, keepdim=True) for one in (mixed, guided)
        )
        rescaled: Tensor = mixed * (wanted / length)
        return rescaled

    def decoded(self, x: Tensor) -> Tensor:
        latents = self.pipeline._unpack_latents(
            x, self.height, self.width, self.pipeline.vae_scale_factor
        )
        videos: Tensor = self.pipeline.vae.decode(self.denormalised(latents), return_dict=False)[0]
        return videos[:, :, 0]

    def arguments(
        self, prompts: Sequence[str], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        given = super().arguments(prompts, latents, steps, guidance)
        return {
            "true_cfg_scale" if name == "guidance_scale" else name: value
            for name, value in given.items()
        }
