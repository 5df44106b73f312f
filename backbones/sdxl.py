"""Stable Diffusion XL (diffusion): two CLIP encoders, and a U-Net that is told sizes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from treerl.backbone.contract import Condition
from treerl.engine.task import Task

from .sd15 import SD15  # noqa: TID251


class SDXL(SD15):
    """A `StableDiffusionXLPipeline`, walked by DDIM on the betas that the checkpoint ships."""

    name = "sdxl"
    title = "Stable Diffusion XL"
    pipeline_class = "StableDiffusionXLPipeline"

    def encode_prompts(self, prompts: list[str]) -> Mapping[str, Tensor]:
        text, _, pooled, _ = self.pipeline.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=False
        )
        return {"text": text, "pooled": pooled}

    def uncond(self, tasks: Sequence[Task]) -> Mapping[str, Tensor]:
        encoded = super().uncond(tasks)
        zeros = torch.tensor([self._zeros(task) for task in tasks], device=self.device)
        return {
            name: tensor.masked_fill(zeros.view(-1, *(1,) * (tensor.dim() - 1)), 0)
            for name, tensor in encoded.items()
        }

    def arguments(
        self, tasks: Sequence[Task], latents: Tensor, steps: int, guidance: float
    ) -> dict[str, Any]:
        arguments = super().arguments(tasks, latents, steps, guidance)
        if all(self._zeros(task) for task in tasks):
            arguments.pop("negative_prompt", None)
        return arguments

    def call(
        self,
        tasks: Sequence[Task],
        latents: Tensor,
        steps: int,
        guidance: float,
        output: Literal["latent", "pt"],
    ) -> Tensor:
        # its pipeline brings a float16 autoencoder to float32 by itself, and decodes no others'
        self.pipeline.vae.to(self._dtype)
        try:
            return super().call(tasks, latents, steps, guidance, output)
        finally:
            self.pipeline.vae.float()

    def _place(self) -> None:
        super()._place()
        self.pipeline.vae.float()  # its activations overflow float16

    def added(self, x: Tensor, condition: Condition) -> dict[str, Any]:
        # original size, cropped corner, wanted size; the pipeline says the same by default
        sizes = torch.tensor(
            [self.height, self.width, 0, 0, self.height, self.width], dtype=x.dtype, device=x.device
        )
        return {"text_embeds": condition["pooled"], "time_ids": sizes.expand(len(x), -1)}

    def vae_decode(self, x: Tensor) -> Tensor:
        vae = self.pipeline.vae
        if vae.config.get("latents_mean") is None:
            return super().vae_decode(x)
        images: Tensor = vae.decode(self.denormalised(x), return_dict=False)[0]
        return images

    def _zeros(self, task: Task) -> bool:
        """Whether guidance leads away from zeros, as in training, and from no encoded prompt."""
        if task.negative is not None or self.settings.negative_prompt is not None:
            return False
        return bool(self.pipeline.config.force_zeros_for_empty_prompt)
