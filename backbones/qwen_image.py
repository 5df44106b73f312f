"""Qwen-Image (rectified flow, packed latents): guidance keeps the length of the guided half."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from treerl.backbone.contract import Condition
from treerl.engine.task import Task

from .flux import Flux  # noqa: TID251

LENGTH = 512  # tokens of text, as the pipeline's own call has it


class QwenImage(Flux):
    """A `QwenImagePipeline`; latents are packed, and its schedule shifted, as in FLUX."""

    name = "qwen-image"
    title = "Qwen-Image"
    pipeline_class = "QwenImagePipeline"
    guidance_embedded = False
    default_negative_prompt = " "  # what its model card guides away from

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
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

    def combine(self, uncond: Tensor, cond: Tensor, guidance: float) -> Tensor:
        mixed = uncond + guidance * (cond - uncond)
        # rescaled token by token, [M, L, C], to the norm of the conditional prediction
        length = torch.linalg.vector_norm(mixed, dim=-1, keepdim=True)
        wanted = torch.linalg.vector_norm(cond, dim=-1, keepdim=True)
        rescaled: Tensor = mixed * (wanted / length)
        return rescaled

    def vae_decode(self, x: Tensor) -> Tensor:
        latents = self.denormalised(self._unpacked(x))
        videos: Tensor = self.pipeline.vae.decode(latents, return_dict=False)[0]
        return videos[:, :, 0]

    def arguments(
        self, tasks: Sequence[Task], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        arguments = super().arguments(tasks, latents, steps, guidance)
        arguments["true_cfg_scale"] = arguments.pop("guidance_scale")
        return arguments
